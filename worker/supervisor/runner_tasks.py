"""Tasks of the runner in one attempt: what they say meanwhile is recorded, and their results are parsed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from core.pipeline.messages import Spec
from core.pipeline.stages.generate_text.spec import GeneratedTextOutput, GenerateTextSpec
from core.pipeline.stages.stage import Output, TaskRunner
from core.settings import Settings
from secateur_wire.states import Stage
from worker.runner.client import run_task
from worker.runner.messages import AliveMessage, LogMessage, Message, MetricMessage, ProgressMessage, StageMessage
from worker.supervisor.recorder import Recorder

_OWN_TEXT = 0.25
"""Share of the progress of a job whose model has to write its own text first."""


class RunnerTasks(TaskRunner):
    """Runs tasks one after the other; `folder` takes the runner's log.

    `share` is the part of the job's progress that the tasks of the stage cover. `doing` is what this process itself, or
    the fetcher, is at, while no runner is heard.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        folder: Path,
        *,
        command: Sequence[str],
        on_wait: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._folder = folder
        self._command = command
        self._on_wait = on_wait
        self._own_text = 0.0
        self.share = (0.0, 1.0)
        self.doing: str | None = None

    def run(self, spec: Spec, kind: type[Output], part: tuple[float, float] = (0.0, 1.0)) -> Output:
        """Run a task, whose result is of this kind; `part` is what it covers of the stage's share."""
        start, end = self.share
        low, high = (self._own_text + (1 - self._own_text) * (start + (end - start) * place) for place in part)
        return self._run(spec, kind, low, high)

    def write_text(self, spec: GenerateTextSpec) -> GeneratedTextOutput:
        """Have the model write text, before the first stage; from then on the stages share what is left."""
        self._own_text = _OWN_TEXT
        return self._run(spec, GeneratedTextOutput, 0.0, _OWN_TEXT)

    def record_log(self, message: Message) -> None:
        """Record a log line from runner or fetcher."""
        assert isinstance(message, LogMessage), message
        self.doing = message.message
        self._recorder.event("log", {"level": message.level, "message": message.message})

    def log(self, message: str) -> None:
        """Record a log line of this process."""
        self.record_log(LogMessage(level="info", message=message))

    def wait(self) -> None:
        """Watch, and record a sign of life of this process itself, or the fetcher: it is at `doing`."""
        self._on_wait()
        self._recorder.alive(self.doing)

    def _run(self, spec: Spec, kind: type[Output], low: float, high: float) -> Output:
        self.doing, has_spoken = None, False

        def on_message(message: Message) -> None:
            nonlocal has_spoken
            has_spoken = True
            match message:
                case AliveMessage():
                    self._recorder.alive(message.doing)
                case StageMessage():
                    self._recorder.enter(cast(Stage, message.stage))
                case ProgressMessage():
                    done = low + (high - low) * min(max(message.progress, 0.0), 1.0)
                    self._recorder.progress(done, message.model_dump(include={"block", "blocks"}, exclude_none=True))
                case LogMessage():
                    self.record_log(message)
                case MetricMessage():
                    self._recorder.event("metric", {"name": message.name, "step": message.step, "value": message.value})

        def on_wait() -> None:
            """Watch; a runner gives its own signs of life once it has spoken: one that stands still gives none."""
            self._on_wait() if has_spoken else self.wait()

        result = run_task(
            spec,
            log=self._folder / "runner.log",
            on_message=on_message,
            on_wait=on_wait,
            grace_seconds=self._settings.cancel_grace_seconds,
            command=self._command,
        )
        return kind.model_validate(result)
