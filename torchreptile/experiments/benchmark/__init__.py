"""Benchmarks of meta-training on the machine at hand (``reptile bench``)."""
