"""Locks on files: the kernel's (flock), which end with the process that holds them, however it ends."""

import fcntl
import os


def is_free(lock: int) -> bool:
    """Return whether nobody else holds the lock on this open file; the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
