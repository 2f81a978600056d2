"""Messages of the runner to the supervisor: results, progress, and signs of life while it works.

SIGTERM tells the runner to stop.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TextIO

from core.counting import current_work, finished_share
from core.progress import Progress
from worker.runner.messages import (
    AliveMessage,
    LogMessage,
    Message,
    MetricMessage,
    PartMessage,
    ProgressMessage,
    StageMessage,
)

BEAT_SECONDS = 0.5

_messages: TextIO
_sending = threading.Lock()
_stop_requested = threading.Event()
_part_of_loops: tuple[float, float] | None = None
"""Part of the task's progress that counted loops cover at the moment; None: none."""


def open_messages() -> None:
    """Reserve stdout for messages; call this before anything else writes to it."""
    global _messages
    _messages = os.fdopen(os.dup(1), "w", buffering=1)


def send(message: Message) -> None:
    """Write one line to the supervisor."""
    with _sending:
        _messages.write(message.model_dump_json() + "\n")


@contextlib.contextmanager
def signs_of_life() -> Iterator[None]:
    """Send a sign of life with the current work twice a second, while the body runs, and the progress of loops."""
    ended = threading.Event()

    def beat() -> None:
        send(AliveMessage())
        while not ended.wait(BEAT_SECONDS):
            send(AliveMessage(doing=current_work()))
            if (part := _part_of_loops) is not None:
                start, end = part
                send(ProgressMessage(progress=start + (end - start) * finished_share()))

    thread = threading.Thread(target=beat, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def stop_once_saved() -> None:
    """Make SIGTERM end the task only after its newest block, round or step is saved; without this it ends at once."""
    signal.signal(signal.SIGTERM, lambda *_: _stop_requested.set())


class MessageProgress(Progress):
    """Progress that is sent to the supervisor."""

    def stage(self, name: str) -> None:
        send(StageMessage(stage=name))

    def begin_part(self, start: float, end: float, *, of_loops: bool = False) -> None:
        global _part_of_loops
        send(PartMessage(start=start, end=end))
        _part_of_loops = (start, end) if of_loops else None

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        send(ProgressMessage(progress=share, block=done, blocks=of))

    def log(self, message: str) -> None:
        send(LogMessage(level="info", message=message))

    def metric(self, name: str, step: int, value: float) -> None:
        send(MetricMessage(name=name, step=step, value=value))

    def should_stop(self) -> bool:
        return _stop_requested.is_set()
