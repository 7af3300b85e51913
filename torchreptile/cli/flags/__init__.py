"""The flags of each command; their docstrings are the help."""
