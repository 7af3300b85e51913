"""mini-ImageNet, read from any of its common layouts."""
