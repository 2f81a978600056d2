"""Kinds of devices that models run on, with the facts that plans and estimates need; no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from secateur_wire.errors import InternalError


@dataclass(frozen=True)
class DeviceKind:
    """Kind of device, under torch's name of it.

    `round_to` is the multiple to which structured pruning rounds widths, unless another is requested. `logits_bytes` is
    the largest size of the logits of a batch of questions, unless one question needs more. `solver_elements` is the
    largest number of elements in a solver's working tensor for rows that it processes at the same time.

    `prefers_16_bit` means that models stored in 16 bits are trained, and their gradients computed, in 16 bits;
    otherwise this is done in float32.

    `operations_per_second` and the byte counts are for estimates. `process_bytes` are resident in a process that has
    loaded the engine. `context_bytes` are on the device before the first tensor; None if the device uses the machine's
    own memory. `files` is the prefix of the paths of the device's files, and `control_file` is a file that exists
    wherever there is such a device.
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
        """Return whether tensors on the device are outside the machine's main memory."""
        return self.context_bytes is not None


WAITING_FOR_MEMORY = 10
"""Slowdown of a product with a vector, which reads each number only once, relative to one with a matrix: about."""

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
    """Return the kind of a device from its name, such as `cuda:1`; None for an unknown name."""
    return DEVICE_KINDS.get(device.partition(":")[0])


def device_kind(device: str) -> DeviceKind:
    """Return the kind of a device from its name; raises InternalError for an unknown name."""
    kind = find_kind(device)
    if kind is None:
        raise InternalError(f"there is no device {device!r}: devices are {' and '.join(DEVICE_KINDS)}")
    return kind


def fastest_kind(devices: Iterable[str]) -> DeviceKind:
    """Return the fastest kind among devices with these names; the CPU if none of them is known."""
    known = [kind for device in devices if (kind := find_kind(device)) is not None]
    return max(known, key=lambda kind: kind.operations_per_second, default=CPU)


def kind_of_machine() -> DeviceKind:
    """Return the fastest kind whose files exist on this machine, or the CPU; no device is opened."""
    return fastest_kind(
        kind.name for kind in DEVICE_KINDS.values() if kind.control_file is not None and kind.control_file.exists()
    )
