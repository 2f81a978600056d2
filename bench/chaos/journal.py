"""The record of a run: what clients were told, and what was done to the installation, in the order it happened."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines: `at` (seconds since the epoch), `kind`, and what else is noted; any thread writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def note(self, kind: str, **said: Any) -> None:
        line = json.dumps({"at": time.time(), "kind": kind, **said})
        with self._lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a journal, oldest first."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
