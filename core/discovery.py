"""Discovery of extensions: folders of a package, each described by its module `info`, or single modules.

Other modules of a folder are loaded only on request, so that a description does not need what they import.
"""

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, TypeVar


class Described(Protocol):
    """Description of an extension; lists are sorted by `rank`, lowest first."""

    @property
    def id(self) -> str: ...

    @property
    def rank(self) -> int: ...


_Info = TypeVar("_Info", bound=Described)
_Protocol = TypeVar("_Protocol")


def folders(package: ModuleType) -> list[str]:
    """Return the names of the folders of a package."""
    return [each.name for each in pkgutil.iter_modules(package.__path__) if each.ispkg]


def descriptions(package: ModuleType, kind: type[_Info]) -> dict[str, _Info]:
    """Return the `INFO` of every folder of a package by id, ordered by rank; raises TypeError for a wrong kind."""
    infos: list[_Info] = []
    for folder in folders(package):
        info = import_module(f"{package.__name__}.{folder}.info").INFO
        if not isinstance(info, kind):
            raise TypeError(f"{package.__name__}.{folder}.info: INFO is a {type(info).__name__}, not a {kind.__name__}")
        infos.append(info)
    return {info.id: info for info in sorted(infos, key=lambda info: (info.rank, info.id))}


def find_class(
    package: ModuleType, identity: str, module: str, protocol: Callable[..., _Protocol]
) -> Callable[..., _Protocol] | None:
    """Return the class that implements a protocol, an abstract class, in a module of a folder; None if there is none.

    `identity` is the id of the folder. A folder may have one class for each way in which it is used. The module may
    import the class from another module of the folder.
    """
    folder = f"{package.__name__}.{identity.replace('-', '_')}."
    loaded = import_module(f"{folder}{module}")
    own = (each for each in vars(loaded).values() if isinstance(each, type) and each.__module__.startswith(folder))
    return next((each for each in own if protocol in each.__mro__), None)


def require_class(
    package: ModuleType, identity: str, module: str, protocol: Callable[..., _Protocol]
) -> Callable[..., _Protocol]:
    """Return the class of a protocol as `find_class` does; raises LookupError if there is none."""
    implementation = find_class(package, identity, module, protocol)
    if implementation is None:
        name = getattr(protocol, "__name__", protocol)
        raise LookupError(f"{package.__name__}, {identity!r}: its module {module!r} has no class that is a {name}")
    return implementation


def declared(package: ModuleType, name: str) -> Iterator[Any]:
    """Yield the value of a name in every module of a package."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield getattr(import_module(module.name), name)
