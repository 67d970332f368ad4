"""Views of a conversation beside the chat."""
