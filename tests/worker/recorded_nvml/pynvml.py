"""The driver's library with recorded answers, in every process whose PYTHONPATH begins here.

All of nvidia-ml-py is its own but the functions that ask the driver. `RECORDED_NVML` names a file with devices by
number, as `tests.worker.recordings` has them; a number that is not there is a device that the driver does not list. It
is read at every question, so that a device may fail meanwhile.
"""

import json
import os
import sys
import time
from functools import partial
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_FACTS = ("Name", "UUID", "MemoryInfo", "UtilizationRates", "Temperature", "TotalEccErrors")


def _library() -> Any:
    """Load the library itself, which lies behind this one on the path."""
    others = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    spec = PathFinder.find_spec("pynvml", others)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_real = _library()


def _recorded() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(Path(os.environ["RECORDED_NVML"]).read_text())
    return recorded


def _said(answer: Any) -> Any:
    """Return an answer as the library does: an error is raised by its number, a structure has attributes."""
    if isinstance(answer, dict) and "error" in answer:
        raise _real.NVMLError(answer["error"])
    return SimpleNamespace(**answer) if isinstance(answer, dict) else answer


def _start() -> None:
    driver = _recorded().get("driver")
    if driver == "hangs":
        time.sleep(600)
    _said(driver)


def _by_number(number: int) -> dict[str, Any]:
    device = _recorded().get(str(number), {"error": _real.NVML_ERROR_INVALID_ARGUMENT})
    _said({} | device if "error" in device else None)
    return dict(device)


def _by_uuid(uuid: str) -> dict[str, Any]:
    devices = [each for each in _recorded().values() if isinstance(each, dict) and each.get("UUID") == uuid]
    if not devices:
        raise _real.NVMLError(_real.NVML_ERROR_NOT_FOUND)
    return dict(devices[0])


def _fact(name: str, device: dict[str, Any], *_: Any) -> Any:
    return _said(device[name])


_faked: dict[str, Any] = {
    "nvmlInit": _start,
    "nvmlShutdown": lambda: None,
    "nvmlDeviceGetHandleByIndex": _by_number,
    "nvmlDeviceGetHandleByUUID": _by_uuid,
    **{f"nvmlDeviceGet{fact}": partial(_fact, fact) for fact in _FACTS},
}
assert _faked.keys() <= vars(_real).keys()
globals().update({name: value for name, value in vars(_real).items() if not name.startswith("__")} | _faked)
