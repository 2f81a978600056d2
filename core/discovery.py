"""Discovery of what grows: the folders of a package, each described by its module `info`.

A folder is loaded where it is asked for, so that descriptions need none of what the other modules of it import.
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Protocol, TypeVar


class Described(Protocol):
    """Description of what a folder adds; lists go by `rank`, lowest first."""

    @property
    def id(self) -> str: ...

    @property
    def rank(self) -> int: ...


_Info = TypeVar("_Info", bound=Described)


def descriptions(package: ModuleType, kind: type[_Info]) -> dict[str, _Info]:
    """Return the `INFO` of every folder of a package by id, ordered by rank; TypeError for another kind of it."""
    infos: list[_Info] = []
    for folder in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if folder.ispkg:
            info = import_module(f"{folder.name}.info").INFO
            if not isinstance(info, kind):
                raise TypeError(f"{folder.name}.info: INFO is a {type(info).__name__}, not a {kind.__name__}")
            infos.append(info)
    return {info.id: info for info in sorted(infos, key=lambda info: (info.rank, info.id))}


def classes(package: ModuleType, identity: str, module: str) -> Iterator[type]:
    """Yield the classes that a module of the folder of an id defines."""
    loaded = import_module(f"{package.__name__}.{identity.replace('-', '_')}.{module}")
    for each in vars(loaded).values():
        if isinstance(each, type) and each.__module__ == loaded.__name__:
            yield each
