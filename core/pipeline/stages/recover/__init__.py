"""Recovery of a language model."""
