"""Bench of all causal language models that the installed transformers knows, at tiny sizes."""
