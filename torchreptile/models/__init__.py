"""Networks, and ways to compute many copies of one at once."""
