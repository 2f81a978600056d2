"""Weight files in fewer bytes than the original dense files, restored here byte for byte.

`packed` decodes bitmasks and, by `codes`, quantised weights; `hashed` decodes weight sharing, and `restore` is their
common part. These load numpy, so they are imported where they are used.
"""

from typing import Final

RESTORED: Final = ("packed", "hashed")
"""Forms whose files are restored here, each by the module of its name."""
