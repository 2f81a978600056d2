"""Files of a model for llama.cpp, rounded with an importance matrix and without, and measured on a text."""

from pathlib import Path
from typing import Any

import torch

from bench.prune_cell import prune_into
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import evaluation_set
from core.engine.exporters.implementations import added_exporter
from core.engine.exporters.protocols import Importance
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.engine.pruning.streams.mean_squares import mean_squares
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` into its `output`, where that is not there yet; each file's bytes and losses by window.

    The files of a type are those without the matrix and with it.
    """
    model, output, text = Path(spec["model"]), Path(spec["output"]), Path(spec["text"])
    folder, tokens = open_model(model), load_tensors(Path(spec["tokens"]))["tokens"]
    if not output.exists():
        request = resolve_request(
            folder.description, UnresolvedRequest(spec["method"], None, spec["sparsity"], spec["parameters"])
        )
        prune_into(output, folder, request, tokens)
    artifact, device = open_model(output, own_artifact=True), torch.device("cpu")
    squares = mean_squares(
        artifact, tokens, work=output.with_name(f"{output.name}.work"), device=device, activation_budget_bytes=2**31
    )
    evaluated = evaluation_set(
        read_documents(text, detect_format(text)), artifact.tokenizer(), samples=None, length=spec["length"],
        name=text.stem,
    )  # fmt: skip
    exporter = added_exporter("gguf")
    figures: dict[str, list[dict[str, Any]]] = {}
    for importance in (None, Importance(squares, tokens.numel(), "calibration")):
        added = exporter.export(
            artifact,
            spec["types"],
            read_documents(text, detect_format(text)),
            name=model.name,
            device=device,
            threads=spec["threads"],
            log=print,
            importance=importance,
        )
        files = {each.type: output / each.file for each in added.files}
        losses = exporter.measure_losses(artifact, files, {text.stem: evaluated}, threads=spec["threads"], log=print)
        for each in added.files:
            measured = losses[each.type][text.stem]
            figures.setdefault(each.type, []).append(
                {"bytes": each.bytes, "kl": each.kl, "losses": list(measured.losses)}
            )
    return {"files": figures}
