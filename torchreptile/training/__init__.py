"""Meta-training: the loop, its files, its weights."""
