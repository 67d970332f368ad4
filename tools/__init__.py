"""Tools that developers run by hand. The app does not use them."""
