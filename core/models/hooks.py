"""Hooks on a model's modules."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def removed_after(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Within, the hooks that were registered are there; after it, however it ends, they are gone."""
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()
