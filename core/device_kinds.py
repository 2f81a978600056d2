"""Kinds of devices that models run on, and facts of each that plans and estimates need. Without torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from secateur_wire.errors import InternalError


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device, under torch's name of it.

    `round_to` is the multiple to which structured pruning rounds widths, unless another is requested. `logits_bytes`
    are the most bytes of the logits of a batch of questions, unless one question takes more; `solver_elements` the most
    elements of a solver's working tensor for rows that it processes at the same time.

    `prefers_16_bit`: models stored in 16 bits are trained, and their gradients computed, in 16 bits; else in float32.

    `operations_per_second` and the bytes are for estimates: `process_bytes` resident in a process that has loaded the
    engine, `context_bytes` on the device before the first tensor. The latter is None where the device's memory is the
    machine's own. `files` is what the paths of the device's files begin with, `control_file` the one that is there
    wherever such a device is.
    """

    name: str
    round_to: int
    logits_bytes: int
    solver_elements: int
    prefers_16_bit: bool
    operations_per_second: float
    process_bytes: int
    context_bytes: int | None = None
    files: str | None = None
    control_file: Path | None = None

    @property
    def has_own_memory(self) -> bool:
        """Return True if tensors on the device are not in the machine's main memory."""
        return self.context_bytes is not None


CPU = DeviceKind(
    name="cpu",
    round_to=8,
    logits_bytes=2**29,
    solver_elements=2**24,
    prefers_16_bit=False,
    operations_per_second=2e11,
    process_bytes=450 * 2**20,
)
CUDA = DeviceKind(
    name="cuda",
    round_to=64,
    logits_bytes=2**32,
    solver_elements=2**28,
    prefers_16_bit=True,
    operations_per_second=5e13,
    process_bytes=2 * 2**30,
    context_bytes=600 * 2**20,
    files="/dev/nvidia",
    control_file=Path("/dev/nvidiactl"),
)
DEVICE_KINDS = {kind.name: kind for kind in (CPU, CUDA)}


def find_kind(device: str) -> DeviceKind | None:
    """Return the kind of a device from its name, such as `cuda:1`; None for an unknown one."""
    return DEVICE_KINDS.get(device.partition(":")[0])


def device_kind(device: str) -> DeviceKind:
    """Return the kind of a device from its name; raises InternalError for an unknown one."""
    kind = find_kind(device)
    if kind is None:
        raise InternalError(f"there is no device {device!r}: devices are {' and '.join(DEVICE_KINDS)}")
    return kind


def fastest_kind(devices: Iterable[str]) -> DeviceKind:
    """Return the fastest kind of the devices of these names, the CPU where none of them is known."""
    known = [kind for device in devices if (kind := find_kind(device)) is not None]
    return max(known, key=lambda kind: kind.operations_per_second, default=CPU)


def kind_of_machine() -> DeviceKind:
    """Return the fastest kind that has its files on this machine, else the CPU. Nothing is opened."""
    return fastest_kind(
        kind.name for kind in DEVICE_KINDS.values() if kind.control_file is not None and kind.control_file.exists()
    )
