"""Omniglot: downloaded or read in place, verified and divided into splits."""
