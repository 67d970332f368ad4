"""The page and its chat function. No module in this folder imports torch."""
