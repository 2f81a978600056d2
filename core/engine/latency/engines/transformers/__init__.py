"""Models in PyTorch, as `from_pretrained` opens them."""
