"""How many copies of a network are computed together."""
