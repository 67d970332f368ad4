"""What developers run by hand; nothing here is a part of the app."""
