"""Hooks on a model's modules."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
