"""Methods that are made up for a test: written as folders elsewhere on the package's path, and known for a while."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

from core import methods
from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS


def write_method(place: Path, name: str, files: Mapping[str, str]) -> Path:
    """Write a method's folder into a place, which is returned."""
    folder = place / name
    folder.mkdir()
    for file, source in files.items():
        (folder / file).write_text(dedent(source))
    return place


@contextmanager
def known_here(place: Path, name: str) -> Iterator[MethodInfo]:
    """Make the method of a folder known in the test's process, as it is in a new one."""
    package = f"{methods.__name__}.{name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(place)])
        info = import_module(f"{package}.info").INFO
        patch.setitem(METHODS, info.id, info)
        yield info
    for module in [each for each in sys.modules if each == package or each.startswith(f"{package}.")]:
        del sys.modules[module]
    delattr(methods, name)
