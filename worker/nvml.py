"""Facts of one NVIDIA device, from the driver's own library: `python -m worker.nvml DEVICE` prints them as JSON.

The fields are those of `worker.devices.Device`.

DEVICE  number of the device as the driver counts, or its UUID

This is a separate process for two reasons. A failing device may block the caller forever, out of reach of signals. And
the library does not survive a fork. No other module knows NVML.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import TypeVar

import pynvml

Answer = TypeVar("Answer")
Facts = dict[str, str | int | float]

_NO_DRIVER = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
_NO_DEVICE = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT)
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND)


def read(device: str) -> Facts:
    """Return the driver's facts about a device, without those that it does not support."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in _NO_DRIVER:
            return {"absent": f"there is no NVIDIA driver: {error}"}
        return {"failure": f"the driver does not answer: {error}"}
    facts: Facts = {}
    try:
        by_number = device.isdigit()
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(device)) if by_number else pynvml.nvmlDeviceGetHandleByUUID(device)
        )
        _add_facts(facts, handle)
    except pynvml.NVMLError as error:
        if error.value in _NO_DEVICE:
            return {"absent": f"the driver knows no device {device}"}
        facts["failure"] = f"the device does not answer: {error}"
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
    return facts


def _add_facts(facts: Facts, handle: pynvml.c_nvmlDevice_t) -> None:
    """Add the facts of a device, and a failure if its memory had uncorrectable errors.

    `utilisation` is the share of about the last second in which any kernel ran.
    """
    facts["uuid"] = pynvml.nvmlDeviceGetUUID(handle)
    facts["name"] = pynvml.nvmlDeviceGetName(handle)
    if (memory := _supported(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))) is not None:
        facts |= {"memory_bytes": memory.total, "memory_used_bytes": memory.used}
    if (rates := _supported(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))) is not None:
        facts["utilisation"] = rates.gpu / 100
    celsius = _supported(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    if celsius is not None:
        facts["celsius"] = celsius
    kinds = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    errors = _supported(lambda: pynvml.nvmlDeviceGetTotalEccErrors(handle, *kinds))
    if errors is not None:
        facts["uncorrected_errors"] = errors
        if errors:
            facts["failure"] = f"its memory had {errors} uncorrectable errors since the driver was loaded"


def _supported(question: Callable[[], Answer]) -> Answer | None:
    """Return the answer, None if the device or this user cannot get it; raises if the device is lost."""
    try:
        return question()
    except pynvml.NVMLError as error:
        if error.value in _LOST:
            raise
        return None


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1])))
