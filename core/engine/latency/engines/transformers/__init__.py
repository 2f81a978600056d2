"""transformers: models run by PyTorch, as `from_pretrained` opens them."""
