"""Name of the machine that times belong to."""

import os
import platform
from pathlib import Path


def machine_name() -> str:
    """Return the processor's model and the number of processors that this process may use."""
    return f"{processor_name()}, {len(os.sched_getaffinity(0))} processors"


def processor_name() -> str:
    """Return the processor's model."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
