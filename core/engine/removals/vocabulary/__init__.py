"""Vocabulary: a language model loses tokens, with their rows of the embedding and the head."""
