"""Temporary files of a run in main memory, where there is room: tests make and delete tens of thousands, and on a disk
that discards blocks at once each deletion takes milliseconds.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

_MEMORY = Path("/dev/shm")
"""File system in main memory, of Linux."""
_FILES_BYTES = 8 * 2**30
"""Bytes that files of a run of the suite take at the most, rounded up."""
_PROCESSES_BYTES = 8 * 2**30
"""Bytes that its processes take at the most, rounded up."""


def keep_files_in_memory() -> None:
    """Have this process and those it starts make temporary files in memory, unless TMPDIR says where or room lacks."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return
    if (
        shutil.disk_usage(_MEMORY).free >= _FILES_BYTES
        and psutil.virtual_memory().available >= _FILES_BYTES + _PROCESSES_BYTES
    ):
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None  # looked up anew: pytest has asked for it before any of our lines is run
