"""Drop biases."""
