"""From messages to tokens to text, with one model."""
