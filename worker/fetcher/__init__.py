"""Fetcher: the process that downloads models, texts and images from hub and store to this node.

`__main__.py` reads specs of `protocol.py` and carries them out by `files.py`, `hub_text.py` and `hub_images.py`. A
supervisor imports only `protocol.py`. `hub_text.py` and `hub_images.py` load the `datasets` library, so they are
imported only for the specs that need them. The fetcher never opens a model and never runs code of a repository. This
file imports nothing.
"""
