"""How Budgie was made: its corpus, tokenizer, training and exam. The Space does not need it."""
