"""Tokenizers cut to fewer tokens: which tokens stay, and the files that a folder then has.

A kept text, that is one which the dense tokenizer writes with kept tokens alone, is tokenized to the same tokens. Every
kind of tokenizer states in its own module why that holds for it. Nothing here loads torch or transformers.
"""
