"""The table of models, and which of its rows is the default on this machine."""
