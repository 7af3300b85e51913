"""Functions as tasks: sine waves, and tables of one's own."""
