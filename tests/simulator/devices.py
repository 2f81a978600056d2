"""State of the simulated devices: their memory, what was done on them, and which allocations are to fail."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

NAME = "sim"
COUNT = 2
USUAL_CAPACITY = 2**33
_ROUNDING = 512
"""Bytes that every allocation is a multiple of, as with CUDA's allocator."""


@dataclass
class Counts:
    """Counts of work on a device; bytes are those of copies, and of those from and to pinned memory.

    `synchronisations` are by what made the program wait.
    """

    launches: int = 0
    synchronisations: Counter[str] = field(default_factory=Counter)
    bytes_to_device: int = 0
    pinned_bytes_to_device: int = 0
    bytes_to_host: int = 0
    pinned_bytes_to_host: int = 0
    allocations: int = 0

    @property
    def waits(self) -> int:
        return self.synchronisations.total()


@dataclass
class SimulatedDevice:
    """One simulated device.

    `fails_allocation` is asked at every allocation, with its number among those that are counted and its bytes, if it
    shall fail as if memory had run out. `left` are bytes that an earlier program had not given back.
    """

    index: int
    capacity: int = USUAL_CAPACITY
    allocated: int = 0
    left: int = 0
    peak: int = 0
    counts: Counts = field(default_factory=Counts)
    generator: torch.Generator = field(default_factory=torch.Generator)
    fails_allocation: Callable[[int, int], bool] | None = None
    _arriving: list[Callable[[], object]] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return torch.device(NAME, self.index)

    @property
    def free(self) -> int:
        return self.capacity - self.allocated

    def reset(self) -> None:
        """Forget all that was counted, and be a device of the usual size."""
        self.counts, self.peak, self.capacity = Counts(), self.allocated, USUAL_CAPACITY
        self.left = self.allocated
        self._arriving = []
        self.fails_allocation = None

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what is done inside the context by itself."""
        outer, self.counts = self.counts, Counts()
        try:
            yield self.counts
        finally:
            self.counts = outer

    def allocate(self, nbytes: int) -> int:
        """Take memory for a storage; return the bytes taken. Raises torch.OutOfMemoryError."""
        taken = -(-nbytes // _ROUNDING) * _ROUNDING
        self.counts.allocations += 1
        fails = self.fails_allocation is not None and self.fails_allocation(self.counts.allocations, nbytes)
        if fails or taken > self.free:
            raise torch.OutOfMemoryError(
                f"{NAME} out of memory. Tried to allocate {nbytes} bytes. Device {self.index} has a total capacity of "
                f"{self.capacity} bytes of which {self.free} bytes are free."
            )
        self.allocated += taken
        self.peak = max(self.peak, self.allocated)
        return taken

    def release(self, taken: int) -> None:
        self.allocated -= taken

    def launch(self) -> None:
        """Begin an operator. Nobody waits for it."""
        self.counts.launches += 1

    def synchronise(self, reason: str) -> None:
        """Wait for all that was launched."""
        self.counts.synchronisations[reason] += 1
        arriving, self._arriving = self._arriving, []
        for arrive in arriving:
            arrive()

    def arrive_later(self, arrive: Callable[[], object]) -> None:
        """Call this when the program next waits: a copy to the host that it did not wait for."""
        self._arriving.append(arrive)


DEVICES = tuple(SimulatedDevice(index) for index in range(COUNT))


class Presence:
    """The devices as a whole: whether the product sees any, and which is the current one."""

    is_given = False
    current = 0


def device_of(device: torch.device) -> SimulatedDevice:
    """Return the state of a device, of the current one where it has no number."""
    index = Presence.current if device.index is None else device.index
    if index >= COUNT:
        raise torch.AcceleratorError(f"{NAME} error: invalid device ordinal {index}, of {COUNT}")
    return DEVICES[index]


class DeviceModule:
    """Module that torch and libraries call as `torch.sim`."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def is_available() -> bool:
        return Presence.is_given

    @staticmethod
    def device_count() -> int:
        return COUNT if Presence.is_given else 0

    @staticmethod
    def current_device() -> int:
        return Presence.current

    @staticmethod
    def set_device(device: torch.device | int) -> None:
        Presence.current = device if isinstance(device, int) else device_of(device).index

    @classmethod
    @contextmanager
    def device(cls, device: torch.device | int) -> Iterator[None]:
        before = Presence.current
        cls.set_device(device)
        try:
            yield
        finally:
            Presence.current = before

    @staticmethod
    def synchronize(device: torch.device) -> None:
        device_of(device).synchronise("synchronize")

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        for each in DEVICES:
            each.generator.manual_seed(seed)

    @staticmethod
    def get_rng_state(device: torch.device | int | str = NAME) -> torch.Tensor:
        return _numbered(device).generator.get_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: torch.device | int | str = NAME) -> None:
        _numbered(device).generator.set_state(state)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _numbered(device: torch.device | int | str) -> SimulatedDevice:
    return DEVICES[device] if isinstance(device, int) else device_of(torch.device(device))
