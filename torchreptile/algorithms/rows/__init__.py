"""One row per algorithm, free of torch: its settings, traits and published numbers."""
