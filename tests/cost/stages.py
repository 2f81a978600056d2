"""The fixed small job, and its stored figures: `python -m tests.cost.stages` writes them anew."""

import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import dynamic_module_utils

from core.engine.models.accelerator import DeviceBackend
from core.pipeline.messages import ModelPlace, ModelSource, PruneOutput, Spec, TaskOutput, TextSource
from core.pipeline.stages.evaluation_spec import MeasureSpec, VerifySpec
from core.pipeline.stages.pruning_spec import PruneSpec
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.sources_spec import WriteSpec
from core.progress import Progress
from tests.cost.counting import Cost, cost_of
from tests.recipes import recipe_of
from tests.sources.conftest import write_wordy_model

FIGURES = Path(__file__).parent / "figures.toml"
RELEASES = ("torch", "transformers")
_HEAD = """\
# Cost of each stage of a fixed small job, by which a change that makes a stage do more, or less, is noticed. After a
# change that means to: python -m tests.cost.stages
"""
_SHARED: dict[str, Any] = {"device": "cpu", "threads": 1}
_BODY = {
    "sparsity": 0.5,
    "parameters": {"forward_dtype": "float32"},  # not what the processor prefers
    "calibration": {"dataset": "words", "samples": 8, "sequence_length": 32, "seed": 0},
    "evaluation": {"datasets": ["words"], "samples": 8, "sequence_length": 32},
}


def costs(folder: Path) -> Iterator[tuple[str, Cost]]:
    """Yield each stage of the job and its cost."""
    job = _Job(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # not what the processor prefers
        without = {"prefers_onednn": lambda backend: False, "prefers_bfloat16": lambda backend: False}
        with patch.multiple(DeviceBackend, **without):
            for name, stage in job.stages().items():
                yield name, cost_of(stage)
    finally:
        torch.set_num_threads(threads)


def stored() -> dict[str, Any]:
    """Return the stored figures by stage, and the `releases` that they were counted with."""
    return tomllib.loads(FIGURES.read_text("utf-8"))


class _Job:
    """A Llama of two layers that is pruned on texts of known words: by `frontier`, zeros or narrower, and SparseGPT."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._work = folder, folder / "work"
        self._model = ModelPlace(path=write_wordy_model(folder / "model", hidden_size=64, intermediate_size=160))
        words = folder / "words.txt"
        words.write_text("\n".join(" ".join(f"w{(n * n + 7 * line) % 96}" for n in range(40)) for line in range(80)))
        self._text = TextSource(name="words", path=words, format="text")
        self._artifact = ModelPlace(path=folder / "artifact", own_artifact=True)
        self._expected = folder

    def stages(self) -> dict[str, Callable[[], object]]:
        return {
            "write": self._write,
            "prune_frontier": lambda: self._prune("frontier"),
            "prune_structured": lambda: self._prune("frontier", pattern="structured", sparsity=0.4),
            "prune": lambda: self._prune("sparsegpt"),
            "measure": lambda: _run(
                MeasureSpec(
                    **_SHARED, dense=self._model, pruned=self._artifact, sequence_length=48, prompts=["w5 w6"],
                    prompt_tokens=8,
                )
            ),
            "verify": self._verify,
        }  # fmt: skip

    def _write(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        _run(
            WriteSpec(
                **_SHARED, model=self._model, target=self._folder / "own.jsonl", samples=8, sequence_length=32, seed=0,
                work=self._work,
            )
        )  # fmt: skip

    def _prune(self, method: str, **more: Any) -> None:
        for folder in (self._work, self._artifact.path):
            shutil.rmtree(folder, ignore_errors=True)
        self._work.mkdir()
        output = _run(
            PruneSpec(
                **_SHARED, job="job_1", attempt=1, recipe=recipe_of(method, **_BODY | more),
                model=ModelSource(path=self._model.path, name="m", revision="1"), work=self._work, previous=[],
                artifact=self._artifact.path, calibration=self._text, evaluation=[self._text],
                activation_budget_bytes=2**30,
            )
        )  # fmt: skip
        assert isinstance(output, PruneOutput) and output.expected is not None
        self._expected = output.expected

    def _verify(self) -> None:
        modules = self._folder / "modules"
        before = dynamic_module_utils.HF_MODULES_CACHE
        try:
            _run(
                VerifySpec(
                    **_SHARED, artifact=self._artifact, expected=self._expected, modules=modules,
                    offload=self._folder / "offload",
                )
            )  # fmt: skip
        finally:
            dynamic_module_utils.HF_MODULES_CACHE = before


def _run(spec: Spec) -> TaskOutput:
    return run_stage(spec, Progress(), lambda: 0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = {name: asdict(cost) for name, cost in costs(Path(folder))}
    tables = {"releases": {name: version(name) for name in RELEASES}} | tables
    parts = []
    for name, table in tables.items():
        rows = (f'{key} = "{value}"' if key in RELEASES else f"{key} = {value}" for key, value in table.items())
        parts.append("\n".join([f"[{name}]", *rows]))
    FIGURES.write_text(_HEAD + "\n" + "\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
