"""The sample language model, its texts, and pruning it with the engine's own walk."""

import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.sources import RECALL, LanguageFiles
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows
from core.engine.evaluation.zero_shot import measure_tasks
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.results import PruneResult
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.settings import Settings

SOURCE_FILES = ("argparse", "dataclasses", "inspect", "pickle", "tarfile", "typing")
"""Modules of Python's standard library whose source is the text outside the domain."""


@dataclass(frozen=True)
class Language:
    """The opened model and its windows of tokens [windows, length]: those it is calibrated on, drawn by the seed, and
    others of Wikipedia and of source code.
    """

    folder: ModelFolder
    calibration: Tensor
    in_domain: Tensor
    out_of_domain: Tensor
    questions: Path

    @classmethod
    def opened(cls, seed: int, *, samples: int, length: int, windows: int) -> "Language":
        """From this service's home, as `sources.fetch_language_files` left it."""
        files = LanguageFiles.of(Settings())
        folder = open_model(files.model)
        tokenizer = folder.tokenizer()
        library = Path(sysconfig.get_path("stdlib"))
        sources = [(library / f"{name}.py").read_text() for name in SOURCE_FILES]
        return cls(
            folder,
            calibration_windows(
                read_documents(files.calibration, "jsonl"),
                tokenizer,
                samples=samples,
                length=length,
                seed=seed,
                name=files.calibration.name,
            ),
            evaluation_windows(
                read_documents(files.evaluation, "jsonl"),
                tokenizer,
                samples=windows,
                length=length,
                name=files.evaluation.name,
            ),
            evaluation_windows(sources, tokenizer, samples=windows, length=length, name="the standard library"),
            files.questions,
        )

    @property
    def prunable_share(self) -> float:
        """Of the model's parameters, those of the decoder's linear layers."""
        description = self.folder.description
        return description.prunable_parameters / description.parameters

    @contextmanager
    def pruned(
        self,
        method: str,
        sparsity: float,
        pattern: str = "unstructured",
        *,
        evaluations: Mapping[str, Tensor],
        **parameters: Any,
    ) -> Iterator["Pruned"]:
        """The model pruned by one of the service's methods; its tensors are there until the context ends."""
        request = resolve_request(self.folder.description, UnresolvedRequest(method, pattern, sparsity, parameters))
        with tempfile.TemporaryDirectory(prefix="claims-") as place:
            walk = walk_for(
                self.folder,
                request,
                device=torch.device("cpu"),
                calibration=self.calibration,
                evaluations=dict(evaluations),
                work=Path(place),
            )
            begun = time.perf_counter()
            result = walk.run()
            yield Pruned(self, result, time.perf_counter() - begun, Path(place))


@dataclass(frozen=True)
class Pruned:
    """What a walk left, and the seconds it took."""

    language: Language
    result: PruneResult
    seconds: float
    place: Path

    def perplexity(self, name: str) -> float:
        """On one of the evaluations."""
        return self.result.perplexity[name].pruned

    def recall(self, questions: int) -> tuple[float, float]:
        """Accuracy on the recall task and its standard error."""
        folder = self.place / "artifact"
        write_checkpoint(self.result.files, self.result.unchanged, self.language.folder.path, folder)
        answer = recall(open_model(folder), self.language.questions, questions, self.place)
        shutil.rmtree(folder)
        return answer


def recall(folder: ModelFolder, file: Path, questions: int, work: Path) -> tuple[float, float]:
    """A model's accuracy on the first questions of the recall task, and its standard error."""
    found = measure_tasks(
        folder, {RECALL: file}, limit=questions, work=work, device=torch.device("cpu"), on_progress=lambda done: None
    )[RECALL]
    metric = TASKS[RECALL].metric
    return found[metric], found[f"{metric}_stderr"]
