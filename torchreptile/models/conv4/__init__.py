"""Conv4, the convolutional network of the Reptile and MAML papers, and its fast executions."""
