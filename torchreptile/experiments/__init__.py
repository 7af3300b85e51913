"""Experiments on top of training: comparisons, reproductions of the papers, benchmarks and reports."""
