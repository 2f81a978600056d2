"""Answers of NVML about devices, as `tests.worker.recorded_nvml` replays it."""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REPLAYED = Path(__file__).with_name("recorded_nvml")
LIBRARY_NOT_FOUND, GPU_IS_LOST = 12, 15


def h100(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An H100 at work, with these facts otherwise."""
    return {
        "UUID": f"GPU-5c3c7c3e-0a4b-4d2c-9a53-00000000000{number}",
        "Name": "NVIDIA H100 80GB HBM3",
        "MemoryInfo": {"total": 85_520_809_984, "used": 1_073_741_824, "free": 84_447_068_160},
        "UtilizationRates": {"gpu": 37, "memory": 12},
        "Temperature": 41,
        "TotalEccErrors": 0,
        **changes,
    }


def lost(device: dict[str, Any]) -> dict[str, Any]:
    """The same device fallen off the bus: it is listed, and answers nothing."""
    return {fact: {"error": GPU_IS_LOST} if fact != "UUID" else value for fact, value in device.items()}


class Recording:
    """Answers in a file, which may change while processes ask."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, driver: Any = None, **devices: dict[str, Any]) -> None:
        """Have the driver answer so: `n0` is device 0."""
        answers = {name.removeprefix("n"): facts for name, facts in devices.items()}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({**answers, **({} if driver is None else {"driver": driver})}))
        new.rename(self._file)

    def environment(self, *folders: Path) -> dict[str, str]:
        """Variables by which processes ask it; `folders` come first on their path besides."""
        before = filter(None, [os.environ.get("PYTHONPATH")])
        path = os.pathsep.join([*map(str, folders), str(REPLAYED), str(ROOT), *before])
        return {"PYTHONPATH": path, "RECORDED_NVML": str(self._file)}
