"""Resources of this machine, or of the part a worker may use: memory, cores, disk; `devices.py` has the device."""

import contextlib
import math
import os
import shutil
import sys
from pathlib import Path

import psutil

from core import seclusion
from core.settings import Settings
from secateur_wire.sizes import size
from worker.node_cache import NodeCache
from worker.processes import run


def memory_bytes() -> int:
    """Return the bytes of memory that this process's control group may use, or the machine's."""
    machine = psutil.virtual_memory().total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # no such version of control groups, or the value "max"
            return min(machine, int(limit.read_text()))
    return machine


def cores() -> int:
    """Return the cores that this process may use, by its affinity and the quota of its control group."""
    allowed = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no such version of control groups, or "max"
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        return min(allowed, math.ceil(quota / period))
    return allowed


def usable_memory_bytes(settings: Settings) -> int:
    """Return the bytes of main memory that this worker may use: from its settings, otherwise the machine's."""
    return settings.worker_memory_bytes or memory_bytes()


def disk_free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`, which does not have to exist yet."""
    return shutil.disk_usage(nearest_existing(folder)).free


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or the lowest folder above it that exists."""
    return next(each for each in (folder, *folder.resolve().parents) if each.exists())


def disk_room_bytes(settings: Settings) -> int:
    """Return the bytes that a job can use: free space on the work folder's disk, and what its cache can free.

    Workers of one node's devices share the disk; each counts only its own part.
    """
    return _room_bytes(settings) // max(1, len(settings.devices))


def _room_bytes(settings: Settings) -> int:
    room, cache = disk_free_bytes(settings.work_root), settings.cache_root
    if cache.is_dir() and cache.stat().st_dev == nearest_existing(settings.work_root).stat().st_dev:
        room += NodeCache(cache, max_bytes=settings.cache_max_bytes).reclaimable_bytes()
    return room


def is_below_watermark(settings: Settings) -> bool:
    """Return whether the disk is nearly full; the cache may be what fills it."""
    return disk_free_bytes(settings.work_root) < settings.disk_watermark_bytes


def empty_cache(settings: Settings) -> None:
    """Remove unused entries of the cache until the disk is not nearly full; this may take long."""
    if is_below_watermark(settings) and settings.cache_root.is_dir():
        cache = NodeCache(settings.cache_root, max_bytes=settings.cache_max_bytes)
        cache.reclaim(settings.disk_watermark_bytes)


def disk_shortage(settings: Settings) -> str | None:
    """Return the reason to claim no job now: the disk would be nearly full even with an empty cache; None otherwise."""
    if not is_below_watermark(settings) or _room_bytes(settings) >= settings.disk_watermark_bytes:
        return None
    free = disk_free_bytes(settings.work_root)
    return (
        f"the disk of {settings.work_root} has {size(free)} free, less than the watermark of "
        f"{size(settings.disk_watermark_bytes)}"
    )


def seclusion_refusal() -> str | None:
    """Return the reason why this system does not let processes be secluded (`core.seclusion`); None where it does.

    Tried in a process of its own, which could not get out again.
    """
    tried = run([sys.executable, "-I", "-S", seclusion.__file__], name="seclusion")
    return tried.stdout.strip() if tried.returncode else None
