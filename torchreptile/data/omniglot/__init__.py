"""Omniglot: downloaded or read in place, verified, divided."""
