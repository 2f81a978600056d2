"""Messages of the runner to the supervisor: results, progress, and signs of life while it works."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TextIO

from core.counting import current_work
from worker.runner.messages import AliveMessage, Message

BEAT_SECONDS = 0.5

_messages: TextIO
_sending = threading.Lock()


def open_messages() -> None:
    """Take stdout for messages. To be called before anything else is sent there."""
    global _messages
    _messages = os.fdopen(os.dup(1), "w", buffering=1)


def send(message: Message) -> None:
    """Write one line to the supervisor."""
    with _sending:
        _messages.write(message.model_dump_json() + "\n")


@contextlib.contextmanager
def signs_of_life() -> Iterator[None]:
    """Say twice a second that this process lives and what it is at, while the body runs; nothing after it."""
    ended = threading.Event()

    def beat() -> None:
        send(AliveMessage())
        while not ended.wait(BEAT_SECONDS):
            send(AliveMessage(doing=current_work()))

    thread = threading.Thread(target=beat, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
