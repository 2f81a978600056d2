"""Import of a GGUF file."""
