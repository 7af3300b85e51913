"""Comparing, reproducing, timing and reporting."""
