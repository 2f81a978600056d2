"""Jobs of the matrix: each prunes a tiny model as the service does, writes it, and opens it again."""

from pathlib import Path

import torch
from torch import Tensor

from bench.architectures.outcomes import Capability
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import require_structure
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import removable_parameters
from core.engine.architectures.units import AttentionMode, removed_kinds
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.stream import Stream
from core.engine.removals.experts import expert_sparsities
from core.engine.resume.store import ResumeStore
from core.pipeline.plans import walk_for
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.job_body import Layout
from tests.families import ROWS

_DEVICE = torch.device("cpu")
_MEMORY = 2**28
_SHARE = 0.5


WAYS: dict[Capability, tuple[str, str]] = {capability: row.way for row in ROWS for capability in row.capabilities}


def carry_out(
    capability: Capability, folder: ModelFolder, calibration: Tensor, work: Path, discovered: Architecture | None
) -> tuple[Path, PruneResult]:
    """Prune a folder and return what was written; raises what a job ends with."""
    work.mkdir(parents=True, exist_ok=True)
    request = _request(capability, folder)
    walk = walk_for(folder, request, device=_DEVICE, calibration=calibration, evaluations={}, work=work)
    result = walk.run()
    artifact = work / "artifact"
    write_checkpoint(result.files, result.unchanged, folder.path, artifact, config=result.config, discovered=discovered)
    for offload in (None, work / "offload"):
        reload_check(artifact, result.verification, device=_DEVICE, discovered=discovered, offload=offload)
    return artifact, result


@torch.inference_mode()
def streamed_logits(folder: ModelFolder, tokens_NT: Tensor, micro_batch: int, work: Path) -> Tensor:
    """Return the logits that a model gives block by block, [sequences, time, vocabulary]."""
    work.mkdir(parents=True, exist_ok=True)
    streamed = StreamedModel(folder, dtype=torch.float32, device=_DEVICE)
    stream = Stream(
        "tokens", tokens_NT, streamed, ResumeStore(work, ""), ActivationBudget(_MEMORY), dtype=torch.float32,
        micro_batch=micro_batch, resumable=False,
    )  # fmt: skip
    stream.start()
    for index in range(len(streamed)):
        stream.advance(streamed.fill_block(index, streamed.read_block(index), torch.float32), index)
        streamed.empty_block(index)
    positions = torch.arange(tokens_NT.shape[1])
    return torch.cat(
        [streamed.logits(stream.tokens[batch], hidden, positions) for batch, hidden in stream.batches()]
    ).float()


def reopened(artifact: Path, discovered: Architecture | None) -> ModelFolder:
    """Open what a job wrote."""
    return open_model(artifact, own_artifact=True, discovered=discovered)


def shrank(capability: Capability, before: ModelFolder, after: ModelFolder) -> bool:
    """Return whether there is less of what was to go."""
    if capability == "per layer":
        structure = require_structure(after.description)
        having = sum(layer.sizes["channels"] > 0 for layer in structure.layers)
        # Where one layer alone has any, as where the others have no experts, it differs from none.
        fewer = _total(structure, "channels") < _total(require_structure(before.description), "channels")
        return not structure.is_uniform or (having == 1 and fewer)
    if capability == "layers":
        return after.description.layers < before.description.layers
    return _total(require_structure(after.description), capability) < _total(
        require_structure(before.description), capability
    )


def _total(structure: ModelStructure, size: str) -> int:
    return sum(layer.sizes[size] for layer in structure.layers)


def _request(capability: Capability, folder: ModelFolder) -> ResolvedRequest:
    """Return the request of a job that takes half of what can go; of layers, as many as half the blocks are.

    Of experts it is the one in the middle of the numbers that are offered.
    """
    (method, pattern), description = WAYS[capability], folder.description
    if pattern != "structured":
        return resolve_request(description, UnresolvedRequest(method, pattern, _SHARE, {"micro_batch": 1}))
    structure = require_structure(description)
    if capability == "layers":
        layers = len(structure.layers)
        share = max(layers // 2, 1) / layers * structure.parameters / description.parameters
        return resolve_request(description, UnresolvedRequest(method, pattern, share))
    if capability == "experts":
        sparsities = expert_sparsities(description)
        return resolve_request(description, UnresolvedRequest(method, pattern, sparsities[len(sparsities) // 2]))
    is_per_layer = capability == "per layer"
    loses_heads = capability == "heads" or (is_per_layer and structure.facts["kv_group_parameters"] > 0)
    attention = _attention(structure) if loses_heads else "none"
    kinds = removed_kinds(attention)
    protected = _protected(structure) if is_per_layer else 0
    removable = sum(removable_parameters(structure, each, kinds) for each in range(protected, len(structure.layers)))
    # Where nothing can go the request is made all the same: the refusal is the service's own.
    share = _SHARE * removable / description.parameters or _SHARE
    parameters = {"attention": attention, "protected_first": protected}
    layout: Layout = "per_layer" if is_per_layer else "uniform"
    return resolve_request(description, UnresolvedRequest(method, pattern, share, parameters, layout=layout))


def _protected(structure: ModelStructure) -> int:
    """Return how many first layers are left alone: up to one that has channels, unless no other has any."""
    having = [layer for layer, shape in enumerate(structure.layers) if shape.sizes["channels"]]
    return having[0] + 1 if len(having) > 1 else min([1, *having])


def _attention(structure: ModelStructure) -> AttentionMode:
    several = any(layer.sizes.get("kv_heads", 0) > 1 for layer in structure.layers)
    return "kv_groups" if several else "query_heads"
