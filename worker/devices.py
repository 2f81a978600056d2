"""Device of a worker: the driver's facts about it, read by a child process because the driver may never answer."""

import os
import shutil
import subprocess
import sys
import threading

import structlog
from pydantic import BaseModel, ValidationError

from core.device_kinds import CUDA, DeviceKind, device_kind, kind_of_machine
from core.settings import Settings
from worker.processes import spawn

VISIBLE = "CUDA_VISIBLE_DEVICES"
OWN = "SECATEUR_OWN_DEVICE"
"""Variable in which `worker.node` tells a worker its device among `SECATEUR_DEVICES`."""
ANSWER_SECONDS = 20.0
MOST_UNANSWERED = 3
"""Number of questions in a row without an answer after which a device counts as failed."""
_COMMAND = (sys.executable, "-P", "-m", "worker.nvml")

logger = structlog.get_logger()


class Device(BaseModel, frozen=True):
    """Facts of a GPU, as `worker.nvml` reports them; None where unknown.

    Bytes are of the whole device; `memory_used_bytes` counts all processes. `failure` says why the device can no longer
    be used, `absent` why there is none.
    """

    uuid: str | None = None
    name: str | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilisation: float | None = None
    celsius: int | None = None
    uncorrected_errors: int | None = None
    failure: str | None = None
    absent: str | None = None

    @property
    def kind(self) -> DeviceKind:
        return CUDA


def own_device(settings: Settings) -> str | None:
    """Return the device of the node that this worker uses; None for the only worker of a container.

    Raises ValueError for a worker that has several devices to itself.
    """
    if not settings.devices:
        return None
    if OWN not in os.environ:
        raise ValueError("SECATEUR_DEVICES is for `python -m worker`, which starts a worker for each: unset it here")
    return os.environ[OWN]


def ask(device: str) -> Device | None:
    """Return the driver's facts about a device, by number or UUID; None if no answer came in time.

    If the driver blocks the process, a thread waits for it as long as it takes.
    """
    child = spawn([*_COMMAND, device], name="nvml", stdout=subprocess.PIPE)
    if child.wait(ANSWER_SECONDS) is None:
        threading.Thread(target=child.end, name="nvml", daemon=True).start()
        return None
    answer = child.stdout.read()
    child.end()
    try:
        return Device.model_validate_json(answer)
    except ValidationError:
        logger.warning("nothing is known of the device", device=device, answer=answer.decode(errors="replace")[-300:])
        return Device()


class DeviceReader:
    """Reader of the device that this worker's runners use: the first that is visible to them.

    Once the UUID is known, the device is read by its UUID: numbers change when another device falls off the bus.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_required = bool(settings.devices)
        chosen = settings.device
        if chosen is None:
            may_exist = kind_of_machine().has_own_memory or shutil.which("nvidia-smi") is not None
        else:
            may_exist = device_kind(chosen).has_own_memory
        visible = os.environ.get(VISIBLE)
        self._id: str | None = None
        if visible != "" and (may_exist or self._is_required):
            self._id = "0" if visible is None else visible.partition(",")[0]
        self._known: Device | None = None
        """Facts that stay true of it whatever it answers."""
        self._unanswered = 0

    def read(self) -> Device | None:
        """Return the device as it is now, None if there is none; a lost device has a failure."""
        if self._id is None:
            return None
        answer = ask(self._id)
        if answer is None:
            self._unanswered += 1
            silent = f"the driver gave no answer for {MOST_UNANSWERED * ANSWER_SECONDS:g} s"
            answer = Device(failure=silent if self._unanswered >= MOST_UNANSWERED else None)
        elif answer.absent is not None:
            if self._known is None and not self._is_required:
                return None
            answer = Device(failure=answer.absent)
        else:
            self._unanswered = 0
        if answer.uuid is not None and answer.name is not None:
            self._id = answer.uuid
            self._known = Device(uuid=answer.uuid, name=answer.name, memory_bytes=answer.memory_bytes)
        known = self._known or Device()
        return known.model_copy(update=answer.model_dump(exclude_none=True))
