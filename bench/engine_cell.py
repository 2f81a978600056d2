"""A model and a cut of it, as files for several engines, which are timed in turn."""

import shutil
import statistics
from pathlib import Path
from typing import Any, Final

import torch

from bench.prune_cell import prune_into
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.exporters.engine import RunningEngine, Seconds, running
from core.engine.exporters.gguf.runtime import LlamaCpp
from core.engine.exporters.implementations import added_exporter
from core.engine.exporters.onnx.decoder import OnnxDecoder
from core.engine.exporters.openvino.exporter import OpenVinoFiles
from core.engine.exporters.speed import speed_trial
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.tensors import load_tensors
from core.pipeline.recipes.alignment import aligned_request
from core.pipeline.recipes.parts import Export
from core.pipeline.recipes.request import UnresolvedRequest
from secateur_wire.metrics import ExportedFile

_ENGINES: Final[dict[str, type[RunningEngine]]] = {
    "gguf": LlamaCpp,
    "openvino": OpenVinoFiles.engine,
    "onnx": OnnxDecoder.engine,
}


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` into its `output`, where that is not there yet; return rows of files and their rates.

    `files` are pairs of a form and a type. Each of `turns` times every file once in each engine, dense and pruned.
    """
    model, output = Path(spec["model"]), Path(spec["output"])
    folder = open_model(model)
    unresolved = UnresolvedRequest(spec["method"], None, spec["sparsity"], spec["parameters"])
    exports = [Export(format=form, types=[kind]) for form, kind in spec["files"]]
    if not output.exists():
        prune_into(output, folder, aligned_request(folder.description, unresolved, exports), _tokens(spec))
    dense = output.with_name(f"{output.name}-dense")
    shutil.copytree(model, dense, dirs_exist_ok=True)
    both = [open_model(each, own_artifact=True) for each in (dense, output)]
    written = {(form, kind): [_export(each, form, kind, spec) for each in both] for form, kind in spec["files"]}
    trial = speed_trial(folder.description.context_length).model_copy(update={"most_rounds": 3, "seconds": 0.0})
    times: dict[tuple[str, str], list[Seconds]] = {each: [] for each in written}
    for _ in range(spec["turns"]):
        for (form, kind), files in written.items():
            paths = [each.path / file.file for each, file in zip(both, files, strict=True)]
            size = sum(file.bytes for file in files)
            with running(
                _ENGINES[form], largest_file=size, tokens=2 * trial.most_tokens, threads=spec["threads"]
            ) as engine:
                times[form, kind].append(engine.speeds(paths, trial))
    rows = []
    for (form, kind), turns in times.items():
        for place, file in enumerate(written[form, kind]):
            rounds = [each for turn in turns for each in turn[place]]
            row = {"form": form, "type": kind, "pruned": bool(place), "bytes": file.bytes, "kl": file.kl}
            for part, (name, tokens) in enumerate((("prefill", trial.prompt), ("decode", trial.decoded))):
                seconds = [each[part] for each in rounds]
                row[name] = tokens / statistics.median(seconds)
                row[f"{name}_spread"] = max(seconds) / min(seconds) - 1
            rows.append(row)
    return {"rows": rows, "parameters": [each.description.parameters for each in both]}


def _tokens(spec: dict[str, Any]) -> torch.Tensor:
    tokens: torch.Tensor = load_tensors(Path(spec["tokens"]))["tokens"]
    return tokens


def _export(folder: ModelFolder, form: str, kind: str, spec: dict[str, Any]) -> ExportedFile:
    text = Path(spec["text"])
    added = added_exporter(form).export(
        folder,
        [kind],
        read_documents(text, detect_format(text)),
        name=folder.path.name,
        device=torch.device("cpu"),
        threads=spec["threads"],
        log=print,
    )
    return added.files[0]
