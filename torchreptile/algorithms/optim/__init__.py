"""Inner loops and outer updates."""
