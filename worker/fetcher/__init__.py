"""The fetcher: the process that brings models, texts and images from hub and store to this node.

`__main__.py` takes specs of `protocol.py`, which is all a supervisor imports of this, and has each done by `files.py`,
`hub_text.py` or `hub_images.py`; the latter two load the `datasets` library, so they are imported by those specs alone.
Nothing here opens a model or runs code of a repository, and nothing is imported in this file.
"""
