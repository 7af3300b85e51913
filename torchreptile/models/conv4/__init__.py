"""The paper's convolutional networks, and their fast executions."""
