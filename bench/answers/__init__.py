"""The bench of answers: which text to calibrate on, so that a pruned chat model still answers as the dense one does."""
