"""Progress of a runner's task, as messages to the supervisor; SIGTERM is how it learns that it should stop."""

import signal
import threading

from core.progress import Progress
from worker.runner.message_writer import send
from worker.runner.messages import LogMessage, MetricMessage, ProgressMessage, StageMessage

_stop_requested = threading.Event()


def stop_once_saved() -> None:
    """Have SIGTERM end the task only once its newest block, round or step is saved; else it ends at once."""
    signal.signal(signal.SIGTERM, lambda *_: _stop_requested.set())


class MessageProgress(Progress):
    """Progress that is sent to the supervisor."""

    def stage(self, name: str) -> None:
        send(StageMessage(stage=name))

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        send(ProgressMessage(progress=share, block=done, blocks=of))

    def log(self, message: str) -> None:
        send(LogMessage(level="info", message=message))

    def metric(self, name: str, step: int, value: float) -> None:
        send(MetricMessage(name=name, step=step, value=value))

    def should_stop(self) -> bool:
        return _stop_requested.is_set()
