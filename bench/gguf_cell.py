"""A cut of a model, and its files for llama.cpp: gated as a job gates them, and timed beside the dense model's."""

from pathlib import Path
from typing import Any

import torch

from bench.prune_cell import prune_into
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.exporters.implementations import added_exporter
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.pipeline.recipes.alignment import aligned_request
from core.pipeline.recipes.parts import Export
from core.pipeline.recipes.request import UnresolvedRequest


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` into its `output`, where that is not there yet; each file's figures, by type."""
    model, output, types = Path(spec["model"]), Path(spec["output"]), list(spec["types"])
    folder = open_model(model)
    method, sparsity, parameters = spec["method"], spec["sparsity"], spec["parameters"]
    unresolved = UnresolvedRequest(method, None, sparsity, parameters, layout=spec["layout"])
    request = aligned_request(folder.description, unresolved, [Export(format="gguf", types=types)])
    if not output.exists():
        prune_into(output, folder, request, load_tensors(Path(spec["tokens"]))["tokens"])
    text, exporter, device = Path(spec["text"]), added_exporter("gguf"), torch.device("cpu")
    threads = spec["threads"]
    added = exporter.export(
        open_model(output, own_artifact=True),
        types,
        read_documents(text, detect_format(text)),
        name=model.name,
        device=device,
        threads=threads,
        log=print,
    )
    files = {each.type: output / each.file for each in added.files}
    speeds = exporter.measure_speeds(folder, files, output.parent, threads=threads, log=print)
    pruned = open_model(output, own_artifact=True).description
    return {
        "parameters": [folder.description.parameters, pruned.parameters],
        "round_to": request.parameters.model_dump()["round_to"],
        "files": [each.document() | {"speed": speeds[each.type].document()} for each in added.files],
    }
