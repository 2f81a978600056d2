"""Samples: real models, texts, images and questions for a first job, from packages by pinned hash.

`packages.py` fetches, a file for each kind converts and registers: `language.py` (a model and `wikipedia.py`'s texts),
`images.py`, `zero_shot.py`. No job needs any of it, and what only one kind needs is imported where that is made.
"""
