"""Text that a model writes to calibrate or train on."""
