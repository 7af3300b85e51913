"""Functions as tasks: sine waves, and the user's own tables."""
