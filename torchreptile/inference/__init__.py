"""Classifiers and regressors that adapt meta-learned weights to a user's data."""
