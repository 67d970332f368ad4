"""Parley: talk with any open language model, and see and choose how it decodes."""
