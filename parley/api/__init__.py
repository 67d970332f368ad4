"""The API for programs. No module in this folder imports torch."""
