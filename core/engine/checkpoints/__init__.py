"""Checkpoints as data files: headers, configs and templates, checked as untrusted input before anything opens them.

Nothing here knows an architecture, a tensor library or a tokenizer; other packages interpret the files.
"""
