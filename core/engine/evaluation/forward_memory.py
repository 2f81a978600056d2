"""Memory of forwards through whole models, for timing and for the reload check, and the images of one. Without torch.

A forward without a backward holds the activations of one block at a time, and a cache of all blocks. The reload check
and the estimate of a job follow the same rule for leaving the matrices of the model's blocks on disk.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES

DECODED_STEPS = 8
"""Tokens decoded one by one after a timed prefill."""
SMALL_TENSORS = 1.02
"""Factor for small tensors that are not counted: biases, norms, indices, and the allocator's rounding."""
_LONGEST_TIMED = 2048
"""Most tokens of a timed prefill."""
VERIFIED_POSITIONS = 64
"""Tokens whose logits are compared."""
_FLOAT = 4
_COPIES_OF_EXPERTS = 2
"""Bytes of an opened mixture, as a multiple of its files: their pages, and the stacks built from them."""
_COPIES_IN_CONVERSION = 3
"""Copies of a stack of experts while it is built: as read, stacked, and joined with another."""


def timed_tokens(description: ModelDescription, sequence_length: int) -> int:
    return max(1, min(sequence_length, _LONGEST_TIMED, description.context_length - DECODED_STEPS))


def timing_bytes(dense: ModelDescription, other_bytes: int, sequence_length: int) -> int:
    """Return the bytes for timing a model against one of at most `other_bytes`: both models, and one forward."""
    tokens = timed_tokens(dense, sequence_length)
    return ceil((dense.bytes + other_bytes + forward_bytes(dense, tokens, predicted=1)) * SMALL_TENSORS)


def forward_bytes(description: ModelDescription, tokens: int, *, predicted: int) -> int:
    """Return the bytes of a forward of `tokens` tokens, with logits for `predicted` of them and a full cache.

    The peak is the embeddings, the cache and one block's activations, or at the end the cache and the logits.
    """
    width, hidden = WEIGHT_BYTES[description.dtype], description.hidden_size
    passing, cached = approximate_values(description)
    cache = tokens * cached * description.layers
    return width * (cache + max(tokens * passing, tokens * hidden + predicted * description.vocabulary_size))


def approximate_values(description: ModelDescription) -> tuple[int, int]:
    """Return roughly the peak of values per token inside a block, and the cached values per token."""
    widest = max(each.out_features for each in description.linears)
    return 6 * description.hidden_size + 3 * widest, 2 * description.hidden_size


@dataclass(frozen=True)
class ReloadRoom:
    """Free bytes for a check; None where they are unknown, which excludes nothing."""

    memory: int | None
    device_memory: int | None


@dataclass(frozen=True)
class ReloadNeeds:
    """Needs of a check: peak bytes in main memory and in a device's own memory, beyond those of its process.

    `traffic` are the bytes that are read and written because matrices are on disk.
    """

    offloads: bool
    memory: int
    device_memory: int
    traffic: int

    def fits(self, room: ReloadRoom) -> bool:
        return (room.memory is None or self.memory <= room.memory) and (
            room.device_memory is None or self.device_memory <= room.device_memory
        )


def reload_needs(description: ModelDescription, device: DeviceKind, rooms: Sequence[ReloadRoom]) -> ReloadNeeds:
    """Return the needs of the check where it may run in one of these rooms.

    The whole model is opened where one of the rooms is large enough, or where no room is known. Otherwise its blocks'
    matrices stay on disk, and each is read when it is used.
    """
    full = full_needs(description, device)
    return full if not rooms or any(full.fits(room) for room in rooms) else offloaded_needs(description, device)


def full_needs(description: ModelDescription, device: DeviceKind) -> ReloadNeeds:
    """Return the needs of a check of the whole model, opened in main memory and moved to the device."""
    opened = description.bytes * (_COPIES_OF_EXPERTS if _stacks(description) else 1)
    if device.has_own_memory:
        forward = _passing(description, WEIGHT_BYTES[description.dtype]) + _cache(description)
        on_device = ceil((description.bytes + max(forward, _logits(description))) * SMALL_TENSORS)
        return ReloadNeeds(offloads=False, memory=opened, device_memory=on_device, traffic=0)
    memory = opened + 2 * _FLOAT * VERIFIED_POSITIONS * description.vocabulary_size
    return ReloadNeeds(offloads=False, memory=memory, device_memory=0, traffic=0)


def offloaded_needs(description: ModelDescription, device: DeviceKind) -> ReloadNeeds:
    """Return the needs of a check that holds everything but the blocks' matrices, and one matrix in use.

    The experts of a block are used together. Where files store them one by one, the library stacks them while it opens
    the model, and writes the stacks into a folder.
    """
    width = WEIGHT_BYTES[description.dtype]
    resident = description.outer_bytes
    stacks = _stacks(description)
    matrix = max((each.numel for each in description.linears if each.experts is None), default=0) * width
    used = max([matrix, *(sum(block) * width for block in stacks)])
    stacking = _COPIES_IN_CONVERSION * width * max((max(block) for block in stacks), default=0)
    working = used + _passing(description, _FLOAT) + _cache(description) + _logits(description)
    # Each tensor is read once when the model is opened, and once in each of three forwards; stacks are also written.
    traffic = 4 * description.bytes + width * sum(map(sum, stacks))
    if device.has_own_memory:
        on_device = ceil((resident + working) * SMALL_TENSORS)
        return ReloadNeeds(True, memory=max(resident, used, stacking), device_memory=on_device, traffic=traffic)
    compared = 2 * _FLOAT * VERIFIED_POSITIONS * description.vocabulary_size
    memory = ceil((resident + max(working + compared, stacking)) * SMALL_TENSORS)
    return ReloadNeeds(True, memory=memory, device_memory=0, traffic=traffic)


def _passing(description: ModelDescription, width: int) -> int:
    """Return the bytes of a forward's tensors inside a block; `width` is the bytes of a value."""
    inside, _ = approximate_values(description)
    return _positions(description) * inside * width


def _cache(description: ModelDescription) -> int:
    _, cached = approximate_values(description)
    return _positions(description) * description.layers * cached * WEIGHT_BYTES[description.dtype]


def _positions(description: ModelDescription) -> int:
    return min(VERIFIED_POSITIONS, description.context_length)


def _logits(description: ModelDescription) -> int:
    """Return the bytes of the logits: as computed, and converted to float32."""
    width = WEIGHT_BYTES[description.dtype]
    return _positions(description) * description.vocabulary_size * (width + (_FLOAT if width < _FLOAT else 0))


def _stacks(description: ModelDescription) -> list[list[int]]:
    """Return the number of weights of each stack of experts, block by block."""
    by_block: dict[int, list[int]] = defaultdict(list)
    for linear in description.linears:
        if linear.experts is not None:
            by_block[linear.layer].append(linear.numel)
    return list(by_block.values())


MEASURED_AT_ONCE = 128
"""Images per forward when accuracy or loss is measured, or a calibration set is passed over."""
CHECKED_AT_ONCE = 32
"""Images per forward when a saved model is checked."""
TIMED_AT_ONCE = (1, 32)
"""Images per forward when models are timed."""
