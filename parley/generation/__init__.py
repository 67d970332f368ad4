"""From messages to tokens and to text, with one model."""
