"""Interface of an engine's timing, and what engines of files, and of graphs, have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import torch

from core.engine.exporters.engine import RunningEngine, Seconds, running
from core.engine.exporters.engine_process import SpeedTrial
from core.engine.exporters.graph_files import GraphFiles
from core.engine.latency.costs import Workload
from core.engine.latency.small_models import random_model
from core.engine.latency.variants import ModelShape
from core.engine.models.folder import ModelFolder

Timer = Callable[[SpeedTrial], Seconds]
"""Trial of the prepared models in turn: seconds of the prompt and of the decoded tokens, `[model][round]`."""


class EngineTiming(ABC):
    """Timing of models of given shapes, with random weights, in one engine on this machine."""

    @abstractmethod
    def prepared(
        self, folder: ModelFolder, shapes: Sequence[ModelShape], workload: Workload, place: Path
    ) -> AbstractContextManager[Timer]:
        """Make the models in the family of a folder, and return the timer of all of them; `place` is an empty folder.

        Raises ExportFailed, InvalidRequest.
        """


class FileTiming(EngineTiming):
    """Timing of an engine that runs files, in a process of its own; `engine` is that process."""

    engine: ClassVar[type[RunningEngine]]

    @abstractmethod
    def write(self, folder: ModelFolder, shape: ModelShape, kind: str, file: Path) -> Path:
        """Write a model of a shape; `file` is its path without a suffix. Returns the file that the engine opens."""

    @contextmanager
    def prepared(
        self, folder: ModelFolder, shapes: Sequence[ModelShape], workload: Workload, place: Path
    ) -> Iterator[Timer]:
        files = [
            self.write(folder, shape, workload.type, place / f"model-{number}") for number, shape in enumerate(shapes)
        ]
        total = sum(each.stat().st_size for each in place.iterdir() if each.is_file())

        def time(trial: SpeedTrial) -> Seconds:
            tokens = trial.most_tokens * len(files)
            with running(self.engine, largest_file=total, tokens=tokens, threads=workload.used_threads) as engine:
                return engine.speeds(files, trial)

        yield time


class GraphTiming(FileTiming):
    """Timing of an engine of graphs: a model of a shape is traced by `files`, as an artifact is."""

    files: ClassVar[GraphFiles]

    def write(self, folder: ModelFolder, shape: ModelShape, kind: str, file: Path) -> Path:
        target = file.with_suffix(self.files.info.suffixes[0])
        self.files.write_model(random_model(folder, shape, torch.float32), {kind: target})
        return target
