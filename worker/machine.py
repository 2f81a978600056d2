"""Resources of this machine, or of the part a worker may use: memory and disk; `devices.py` has the device."""

import contextlib
import shutil
from pathlib import Path

import psutil

from core.settings import Settings
from worker.node_cache import NodeCache


def memory_bytes() -> int:
    """Return the bytes of memory this process's control group may use, or those of the machine."""
    machine = psutil.virtual_memory().total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # no such version of control groups, or "max"
            return min(machine, int(limit.read_text()))
    return machine


def usable_memory_bytes(settings: Settings) -> int:
    """Return the bytes of main memory that this worker may use, by its settings or else by the machine."""
    return settings.worker_memory_bytes or memory_bytes()


def disk_free_bytes(folder: Path) -> int:
    """Free space on the disk where `folder` is, or will be."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.resolve().parents) if each.exists())


def disk_room_bytes(settings: Settings) -> int:
    """Return the bytes a job can use: free space on the work folder's disk, and what the cache there gives up.

    Workers of one node's devices share the disk, and each counts on its part alone.
    """
    room = disk_free_bytes(settings.work_root)
    cache = settings.cache_root
    if cache.is_dir() and cache.stat().st_dev == _existing(settings.work_root).stat().st_dev:
        room += NodeCache(cache, max_bytes=settings.cache_max_bytes).reclaimable_bytes()
    return room // max(1, len(settings.devices))


def disk_shortage(settings: Settings) -> str | None:
    """Return why this worker should claim nothing now: a disk nearly full though the cache gave up what it could."""
    free = disk_free_bytes(settings.work_root)
    if free < settings.disk_watermark_bytes and settings.cache_root.is_dir():
        cache = NodeCache(settings.cache_root, max_bytes=settings.cache_max_bytes)
        cache.reclaim(settings.disk_watermark_bytes)
        free = disk_free_bytes(settings.work_root)
    if free >= settings.disk_watermark_bytes:
        return None
    return (
        f"the disk of {settings.work_root} has {free / 2**30:.2f} GiB free, less than the watermark of "
        f"{settings.disk_watermark_bytes / 2**30:.2f} GiB"
    )
