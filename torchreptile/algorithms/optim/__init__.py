"""The inner loop, differentiable inner steps, and the outer optimiser."""
