"""Exporter of files that an engine runs: what it requires, the rows in a report, and the speed of files."""

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from core.engine.datasets.token_windows import EvaluationSet
from core.engine.datasets.window_losses import WindowLosses
from core.engine.exporters.agreement import Agreement
from core.engine.exporters.engine import RunningEngine, running
from core.engine.exporters.exporter_info import PARAM, AddedExporterInfo
from core.engine.exporters.file_losses import chosen_windows, measure_losses
from core.engine.exporters.protocols import AddedExporter
from core.engine.exporters.sizes import WINDOW
from core.engine.exporters.speed import compared_speed, own_speed, speed_trial
from core.engine.models.folder import ModelFolder
from secateur_wire.errors import InvalidRequest
from secateur_wire.metrics import ExportedFile, ExportSpeed, FileSpeed


class EngineFiles(AddedExporter):
    """Files of a form, each run in its engine before it is kept."""

    info: ClassVar[AddedExporterInfo]
    engine: ClassVar[type[RunningEngine]]

    @abstractmethod
    def context(self, folder: ModelFolder) -> int:
        """Return the most tokens that files of a model are run with."""

    @abstractmethod
    def dense_files(
        self, dense: ModelFolder, place: Path, types: Sequence[str], threads: int, log: Callable[[str], None]
    ) -> Callable[[str], Path]:
        """Return what gives the dense model's file of each of the types, written into a folder.

        A type's file may be gone once another type's is asked for.
        """

    def size(self, file: Path) -> int:
        """Return the bytes of a file, with those that lie beside it."""
        return file.stat().st_size

    def slow_tokens(self, kind: str, tokens: int) -> int:
        """Return the tokens for which an engine has time, to compute so many with a file of a type."""
        return tokens

    def require_runtime(self) -> None:
        """Require the packages of the form; raises InvalidRequest with the command that installs them."""
        missing, runtime = self.info.missing_packages(), self.info.runtime
        if missing and runtime is not None:
            raise InvalidRequest(
                f"{PARAM}: this worker has no {' and no '.join(missing)}, which {self.info.id} files are written and "
                f"checked by: install them there with {runtime.how_to_install}, or leave "
                f"{self.info.id} out",
                param=PARAM,
            )

    def exported_file(self, file: Path, kind: str, agreement: Agreement, needs: Sequence[str] = ()) -> ExportedFile:
        """Return the report's row of a file that agrees with the artifact."""
        return ExportedFile(
            file=file.name,
            format=self.info.id,
            type=kind,
            bytes=self.size(file),
            needs=list(needs),
            kl=agreement.kl,
            decoded_kl=agreement.decoded_kl,
            top_1=agreement.top_1,
            perplexity=agreement.perplexity,
            artifact_perplexity=agreement.artifact_perplexity,
            predictions=agreement.predictions,
        )

    def measure_losses(
        self,
        folder: ModelFolder,
        files: Mapping[str, Path],
        texts: Mapping[str, EvaluationSet],
        *,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, dict[str, WindowLosses]]:
        context = self.context(folder)
        readable = {name: text for name, text in texts.items() if text.windows.shape[1] <= context}
        if not readable:
            return {}
        length = max(text.windows.shape[1] for text in readable.values())
        tokens = sum(len(chosen_windows(text)) * text.windows.shape[1] for text in readable.values())
        measured = {}
        for kind, file in files.items():
            log(f"measuring {file.name} in {self.engine.name}")
            with running(
                self.engine,
                largest_file=self.size(file),
                tokens=self.slow_tokens(kind, tokens),
                threads=cores_of(threads),
            ) as engine:
                engine.open(file, length, WINDOW)
                measured[kind] = {name: measure_losses(engine, text) for name, text in readable.items()}
        return measured

    def measure_speeds(
        self,
        dense: ModelFolder,
        files: Mapping[str, Path],
        place: Path,
        *,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, ExportSpeed]:
        cores, trial = cores_of(threads), speed_trial(self.context(dense))
        measured = {}
        with TemporaryDirectory(dir=place, prefix="dense-") as folder:
            dense_file = self.dense_files(dense, Path(folder), list(files), cores, log)
            for kind, file in files.items():
                other = dense_file(kind)
                log(f"timing {file.name} and the dense model in {self.engine.name}")
                size, tokens = self.size(other), self.slow_tokens(kind, trial.most_tokens)
                with running(self.engine, largest_file=2 * size, tokens=tokens, threads=cores) as engine:
                    seconds = engine.speeds((other, file), trial)
                measured[kind] = compared_speed(seconds, trial, cores, size)
        return measured

    def measure_own_speeds(
        self,
        dense: ModelFolder,
        files: Mapping[str, Path],
        *,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, FileSpeed]:
        cores, trial = cores_of(threads), speed_trial(self.context(dense))
        measured = {}
        for kind, file in files.items():
            log(f"timing {file.name} in {self.engine.name}")
            tokens = self.slow_tokens(kind, trial.most_tokens)
            with running(self.engine, largest_file=self.size(file), tokens=tokens, threads=cores) as engine:
                measured[kind] = own_speed(engine.speeds((file,), trial), trial, cores)
        return measured


def cores_of(threads: int | None) -> int:
    """Return the number of threads of an engine: as asked for, or all cores of the process."""
    return threads or len(os.sched_getaffinity(0))
