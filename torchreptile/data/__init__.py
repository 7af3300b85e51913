"""Data sets, their splits, and the episodes drawn from them."""
