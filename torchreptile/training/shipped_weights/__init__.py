"""Weights that come with the package: NAME.safetensors with its card NAME.json. See torchreptile.training.weights."""
