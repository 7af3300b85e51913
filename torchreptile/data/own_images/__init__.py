"""The user's own images, in class folders or listed in a csv file."""
