"""The machine the figures belong to."""

import os
import platform

from core.engine.latency.machine import processor_name


def threads_available() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> str:
    """Processor model, cores and operating system, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{processor_name()}, {threads_available()} cores, {memory:.0f} GiB, {platform.system()}"
