"""Small trained mixtures of each family that llama.cpp takes, cut as a job cuts them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from core.engine.checkpoints.safetensors_header import read_header
from core.engine.cuts.losses import Losses
from core.engine.exporters.exporter_info import AddedExporterInfo
from core.engine.exporters.gguf.info import INFO
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import ModelFolder, open_model
from core.pipeline.passes import walk_for
from core.pipeline.recipes.outputs import losses_of
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.discover import discover_and_test
from tests.engine.tiny import make_tokens
from tests.gguf.trained import STEPS, save_trained

WAYS: Final[Mapping[str, UnresolvedRequest | None]] = {
    "uncut": None,
    "experts": UnresolvedRequest("expert-drop", None, 0.2, {"score": "random"}),
    "channels": UnresolvedRequest("l2-structured", None, 0.2, {"attention": "none", "round_to": 32}),
    "per_layer": UnresolvedRequest(
        "l2-structured", None, 0.2, {"attention": "none", "round_to": 32, "protected_first": 1}, layout="per_layer"
    ),
}


def cut_mixture(
    place: Path, family: str, way: str, *, info: AddedExporterInfo = INFO, training_steps: int = STEPS
) -> ModelFolder:
    """Open a trained mixture as a job leaves it; raises InvalidRequest where that is refused before one is queued.

    `info` is the form that the job asks for.
    """
    folder = save_trained(place / "model", family, training_steps)
    config = json.loads((folder / "config.json").read_bytes())
    discovered = discover_and_test(config, read_header(folder / "model.safetensors"))
    opened, unresolved = open_model(folder, discovered=discovered), WAYS[way]
    if unresolved is None:
        info.check_types(opened.description, info.types[:1], Losses(), "output.exports.0.types")
        return opened
    request = resolve_request(opened.description, unresolved)
    info.check_types(
        opened.description, info.types[:1], losses_of(opened.description, request), "output.exports.0.types"
    )
    tokens = make_tokens(4, 32, vocabulary=opened.description.vocabulary_size)
    (place / "work").mkdir()
    result = walk_for(
        opened, request, device=torch.device("cpu"), work=place / "work", calibration=tokens, evaluations={}
    ).run()
    write_checkpoint(result.files, result.unchanged, folder, place / "cut", config=result.config, discovered=discovered)
    return open_model(place / "cut", own_artifact=True, discovered=discovered)
