"""Vocabularies made smaller: which tokens stay, and the weights, config and tokenizer of the model that keeps them.

A kept text, that is one which the dense tokenizer writes with kept tokens alone, is tokenized to the same tokens. Every
kind of tokenizer states in its own class why that holds for it. Nothing that reads a tokenizer loads torch.
"""
