"""What exactly happened at each token of an answer, found out when somebody asks."""
