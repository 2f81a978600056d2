"""A cut of a model, and its files for llama.cpp: gated as a job gates them, and timed beside the dense model's."""

import shutil
from pathlib import Path
from typing import Any

import torch

from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.exporters.implementations import added_exporter
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.pipeline.passes import walk_for
from core.pipeline.recipes.alignment import aligned_request
from core.pipeline.recipes.parts import Export
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` into its `output`, where that is not there yet; each file's figures, by type."""
    model, output, types = Path(spec["model"]), Path(spec["output"]), list(spec["types"])
    folder = open_model(model)
    method, sparsity, parameters = spec["method"], spec["sparsity"], spec["parameters"]
    unresolved = UnresolvedRequest(method, None, sparsity, parameters, layout=spec["layout"])
    request = aligned_request(folder.description, unresolved, [Export(format="gguf", types=types)])
    if not output.exists():
        _prune(folder, request, load_tensors(Path(spec["tokens"]))["tokens"], output)
    text, exporter, device = Path(spec["text"]), added_exporter("gguf"), torch.device("cpu")
    threads = spec["threads"]
    added = exporter.export(
        output,
        types,
        read_documents(text, detect_format(text)),
        name=model.name,
        device=device,
        threads=threads,
        log=print,
    )
    files = {each.type: output / each.file for each in added.files}
    speeds = exporter.measure_speeds(model, files, output.parent, own_dense=False, threads=threads, log=print)
    pruned = open_model(output, own_artifact=True).description
    return {
        "parameters": [folder.description.parameters, pruned.parameters],
        "round_to": request.parameters.model_dump()["round_to"],
        "files": [each.document() | {"speed": speeds[each.type].document()} for each in added.files],
    }


def _prune(folder: Any, request: ResolvedRequest, calibration: torch.Tensor, output: Path) -> None:
    work = output.with_name(f"{output.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    device = torch.device("cpu")
    result = walk_for(folder, request, device=device, calibration=calibration, evaluations={}, work=work).run()
    write_checkpoint(result.files, result.unchanged, folder.path, work / "artifact", config=result.config)
    (work / "artifact").rename(output)
    shutil.rmtree(work)
