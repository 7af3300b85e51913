"""How well a run does, measured and recorded."""
