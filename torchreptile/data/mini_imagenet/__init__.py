"""mini-ImageNet in all its common layouts."""
