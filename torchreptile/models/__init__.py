"""Networks, and how many copies of one are computed together."""
