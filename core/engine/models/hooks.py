"""Hooks on a model's modules, and the hidden states among what they see."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.utils.hooks import RemovableHandle


@contextmanager
def removed_after(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep registered hooks inside the context, and remove them afterwards, even after an error."""
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()


def first_output(output: object) -> Tensor | None:
    """Return the hidden states that a block returns: its output, or the first item of it."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, Tensor) else None
