"""The page and the API. Nothing in here knows torch."""
