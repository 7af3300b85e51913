"""Few-shot meta-learning in PyTorch: the Reptile paper's experiments, right, fast and practical."""

__version__ = "0.1.0"
