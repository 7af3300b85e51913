"""Weights shipped with the package: NAME.safetensors and its card NAME.json; see torchreptile.training.weights."""
