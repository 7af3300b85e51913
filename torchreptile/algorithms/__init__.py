"""The few-shot learners, each in a file under its full name; :mod:`torchreptile.algorithms.rows` describes them."""
