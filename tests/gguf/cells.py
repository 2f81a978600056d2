"""Cells of the matrix: a small trained model of each family, cut in each way as a job cuts it."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.exporters.exporter_info import AddedExporterInfo
from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.exporters.gguf.info import INFO
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.exporters.protocols import AddedForm
from core.engine.models.casting import folder_as_stored
from core.engine.models.folder import ModelFolder, open_model
from core.pipeline.plans import walk_for
from core.pipeline.recipes.outputs import losses_of
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.job_body import Layout, Quantization, StoredDtype
from tests.engine.sweeping import request_for, save
from tests.engine.tiny import make_tokens
from tests.gguf.trained import LINES, STEPS, save_trained

Cell = tuple[str, str]
"""A family, and a way to cut it."""


@dataclass(frozen=True)
class Way:
    """A way to cut a model. `sparsity` None: one whole layer goes.

    `removes_heads`: of families that can lose heads some go whatever they do, where a method would choose channels.
    """

    method: str = "recover"
    sparsity: float | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    layout: Layout | None = None
    removes_heads: bool = False

    def request(self, description: ModelDescription) -> ResolvedRequest:
        sparsity = self.sparsity
        if self.method == "depth" and description.structure is not None:
            sparsity = description.structure.layers[0].parameters / description.parameters
        parameters = dict(self.parameters)
        if self.removes_heads and LANGUAGE_ARCHITECTURES[description.architecture].axes("heads"):
            parameters["attention"] = "kv_groups"
        return resolve_request(
            description, UnresolvedRequest(self.method, None, sparsity, parameters, layout=self.layout)
        )


WAYS: Final[Mapping[str, Way]] = {
    "uncut": Way(),
    "zeros": Way("magnitude", 0.5),
    "channels": Way("l2-structured", 0.15, {"attention": "none", "round_to": 32}),
    "heads": Way("l2-structured", 0.25, {"round_to": 32}, removes_heads=True),
    "layers": Way("depth"),
    "per_layer": Way("l2-structured", 0.15, {"protected_first": 1, "round_to": 32}, "per_layer", removes_heads=True),
}


MIXTURE_WAYS: Final[Mapping[str, Way]] = {
    "uncut": Way(),
    "experts": Way("expert-drop", 0.2, {"score": "random"}),
    "channels": Way("l2-structured", 0.2, {"attention": "none", "round_to": 32}),
    "per_layer": Way("l2-structured", 0.2, {"attention": "none", "round_to": 32, "protected_first": 1}, "per_layer"),
}


def cut_trained(place: Path, family: str, way: str, *, info: AddedExporterInfo = INFO, **changes: Any) -> Path:
    """Save a trained model as a job leaves it; raises InvalidRequest where that is refused before one is queued.

    `info` is the form that the job asks for.
    """
    return _cut(place, open_model(save_trained(place / "model", family, **changes)), way, WAYS[way], info).path


def cut_mixture(
    place: Path, family: str, way: str, *, info: AddedExporterInfo = INFO, training_steps: int = STEPS
) -> ModelFolder:
    """Open a trained mixture as a job leaves it, likewise."""
    folder = save_trained(place / "model", family, training_steps)
    config = json.loads((folder / "config.json").read_bytes())
    discovered = discover_and_test(config, read_header(folder / "model.safetensors"))
    return _cut(place, open_model(folder, discovered=discovered), way, MIXTURE_WAYS[way], info)


def _cut(place: Path, opened: ModelFolder, name: str, way: Way, info: AddedExporterInfo) -> ModelFolder:
    request, discovered = way.request(opened.description), opened.description.discovered
    info.check_types(
        opened.description, info.types[:1], losses_of(opened.description, request), "output.exports.0.types"
    )
    if name == "uncut":
        return opened
    work = place / "work"
    work.mkdir()
    tokens = make_tokens(4, 32, vocabulary=opened.description.vocabulary_size)
    result = walk_for(opened, request, device=torch.device("cpu"), work=work, calibration=tokens, evaluations={}).run()
    write_checkpoint(
        result.files, result.unchanged, opened.path, place / "cut", config=result.config, discovered=discovered
    )
    return open_model(place / "cut", own_artifact=True, discovered=discovered)


def quantised(place: Path, chosen: Quantization, family: str = "llama", dtype: StoredDtype = "bfloat16") -> Path:
    """Save a trained model as a job that quantises it leaves it."""
    folder, work = save_trained(place / "model", family), place / "work"
    opened = open_model(folder)
    work.mkdir()
    result = walk_for(
        opened, request_for(opened, "none"), device=torch.device("cpu"), quantization=chosen, work=work,
        calibration=make_tokens(4, 32, vocabulary=opened.description.vocabulary_size), evaluations={},
        stored=folder_as_stored(opened, dtype),
    ).run()  # fmt: skip
    return save(result, folder, place / "artifact")


def export(folder: Path, *types: str) -> AddedForm:
    return export_opened(open_model(folder, own_artifact=True), *types)


def export_opened(folder: ModelFolder, *types: str) -> AddedForm:
    return GgufFiles().export(
        folder, types, LINES, name="small", device=torch.device("cpu"), threads=1, log=lambda text: None
    )


def nightly_but(cells: Sequence[tuple[str, ...]], in_every_run: Collection[tuple[str, ...]]) -> list[object]:
    """Return the parameters of tests of cells; all but a few run at night."""
    assert set(in_every_run) <= set(cells)
    return [
        pytest.param(*cell, marks=() if cell in in_every_run else pytest.mark.nightly, id="-".join(cell))
        for cell in cells
    ]
