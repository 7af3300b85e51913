"""Ways to compute T copies of one network, and how one of them is chosen."""
