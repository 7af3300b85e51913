"""Images in class folders, or named by a csv."""
