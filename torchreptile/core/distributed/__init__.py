"""Distributed training and background jobs: several processes that work together."""
