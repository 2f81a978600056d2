"""Files as the hub describes them."""

import hashlib
from typing import Any

LARGE_BYTES = 2000
"""Size from which on a file lies in the hub's file storage."""


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_of(data: bytes) -> dict[str, Any] | None:
    if len(data) < LARGE_BYTES:
        return None
    return {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    lfs = lfs_of(data)
    return {"type": "file", "path": path, "size": len(data), "oid": git_blob(data)} | ({"lfs": lfs} if lfs else {})
