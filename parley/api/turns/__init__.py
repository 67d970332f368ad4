"""Turns as the page and programs run them: the line, the thread, what goes wrong, and a call that is cancelled."""
