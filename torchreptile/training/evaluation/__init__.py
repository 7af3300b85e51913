"""Evaluation of meta-learned weights: measurement, records and published results."""
