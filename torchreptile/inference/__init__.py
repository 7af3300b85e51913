"""Classifiers and regressors made of meta-learned weights."""
