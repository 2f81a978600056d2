"""Running a sweep in a test, and reading what it left."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.architectures.description import require_structure
from core.engine.architectures.units import attention_mode
from core.engine.evaluation.perplexity import MeasuredPerplexity
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.casting import folder_as_stored
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.streamed import StreamedModel, call_block
from core.engine.models.tensors import load_tensors
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.removals.widths import WidthOptions
from core.engine.resume.kinds import BLOCK
from core.methods.registry import get_method
from core.pipeline.plans import walk_for
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.progress import Progress
from secateur_wire.job_body import StoredDtype
from tests.engine.resuming import positions


def request_for(
    folder: ModelFolder,
    method: str,
    sparsity: float | None = None,
    pattern: str | None = None,
    parameters: dict[str, Any] | None = None,
    **more: Any,
) -> ResolvedRequest:
    """The request as a submitted job has it: checked against the model, with its defaults."""
    return resolve_request(folder.description, UnresolvedRequest(method, pattern, sparsity, parameters or {}, **more))


def with_heads(folder: ModelFolder, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters by which heads go in the share that channels do, where the family can lose any and nothing is said."""
    if not issubclass(get_method(method).parameters, WidthOptions):
        return parameters
    return {"attention": attention_mode("auto", require_structure(folder.description))} | parameters


def sweep(
    folder: Path,
    work: Path,
    *,
    calibration: Tensor | None,
    evaluations: dict[str, Tensor] | None = None,
    previous: Sequence[Path] = (),
    progress: Progress | None = None,
    budget: int = 2**30,
    dense_perplexity: dict[str, MeasuredPerplexity] | None = None,
    dtype: StoredDtype = "keep",
    **request: Any,
) -> PruneResult:
    """Prune a folder, for an artifact in this dtype; `request` is what `request_for` takes."""
    opened = open_model(folder)
    work.mkdir(parents=True, exist_ok=True)
    return walk_for(
        opened, request_for(opened, **request), device=torch.device("cpu"), calibration=calibration,
        evaluations=evaluations or {}, work=work, previous=previous,
        progress=progress, activation_budget_bytes=budget, dense_perplexity=dense_perplexity,
        stored=folder_as_stored(opened, dtype),
    ).run()  # fmt: skip


def tensors_of(result: PruneResult) -> dict[str, Tensor]:
    return {name: tensor for file in result.files for name, tensor in load_tensors(file).items()}


def save(result: PruneResult, source: Path, target: Path, *, shard_bytes: int = 10**9) -> Path:
    write_checkpoint(result.files, result.unchanged, source, target, config=result.config, shard_bytes=shard_bytes)
    return target


def last_hidden(folder: Path, tokens: Tensor) -> Tensor:
    """Return the hidden states of a model folder after the last block, before the final norm."""
    opened = open_model(folder, own_artifact=True)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    hidden = streamed.embed(tokens)
    arguments = RecordedArguments(streamed, torch.float32).of(tokens)
    with torch.inference_mode():
        for index in range(len(streamed)):
            hidden = call_block(
                streamed.fill_block(index, streamed.read_block(index), torch.float32), hidden, arguments[index]
            )
    return hidden


def newest_stream(work: Path, name: str) -> Tensor:
    """Return the hidden states of a stream after the last block that was done, in the dtype of its forwards."""
    newest = positions(work, BLOCK)[-1]
    return torch.cat([load_tensors(file)["hidden"] for file in sorted(newest.glob(f"{name}-*.safetensors"))])
