"""Answers of the dense and the pruned model to the same questions."""
