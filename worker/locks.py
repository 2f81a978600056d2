"""File locks of the kernel (flock), which end with the process that holds them, for whatever reason it ends."""

import fcntl
import os


def is_free(lock: int) -> bool:
    """Return whether nobody else holds the lock on this open file; the file is closed."""
    try:
        return lock_now(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def lock_now(lock: int, how: int) -> bool:
    """Lock an open file if that is possible without waiting; return whether it was."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
