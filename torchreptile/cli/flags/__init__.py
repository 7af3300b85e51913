"""The flags of each command, one dataclass per command; their docstrings are the help texts."""
