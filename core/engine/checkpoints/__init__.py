"""Checkpoints as files of data: their headers, configs and templates, read without trust before anything opens them.

No architecture, tensor library or tokenizer has a place here: what the files mean is said further up.
"""
