"""Weight files in fewer bytes than the dense files they came from, restored here byte for byte.

`packed` undoes bitmasks, `hashed` undoes weight sharing, `restore` is what both stand on. All load numpy, so they are
imported where they are used.
"""

from typing import Final

RESTORED: Final = ("packed", "hashed")
"""Forms whose files are restored here, each by the module of its name."""
