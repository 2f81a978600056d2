"""Celery's `filesystem://` transport with atomic messages.

Celery's own transport opens a message under its final name and then writes it. A consumer that looks in between reads
an empty message, and ends. With a message every second or two, that happens within days.
"""

import uuid
from pathlib import Path
from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

from secateur_wire.base import JsonObject

SCHEME = "folder"
LONGEST_WAIT_SECONDS = 0.2


class FolderChannel(filesystem.Channel):
    """Channel that writes each message under a temporary name and renames it."""

    def _put(self, queue: str, payload: JsonObject, **_: object) -> None:  # type: ignore[override]
        name = f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        folder = Path(self.data_folder_out)
        temporary = folder / f".{name}"
        temporary.write_text(dumps(payload))  # type: ignore[no-untyped-call]
        temporary.rename(folder / name)


class FolderTransport(filesystem.Transport):
    Channel = FolderChannel

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Return to the consumer's loop sooner than requested, so that it notices a request to stop."""
        timeout = timeout and min(timeout, LONGEST_WAIT_SECONDS)
        super().drain_events(connection, timeout=timeout)  # type: ignore[no-untyped-call]


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:FolderTransport"
