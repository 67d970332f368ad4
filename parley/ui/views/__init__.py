"""Parts of the page next to the chat."""
