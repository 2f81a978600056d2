"""Recovery of one model folder: loaded by `from_pretrained`, trained, and written as the changed tensors.

The entire model is in memory. Trained parameters are float32, whatever the folder stores. On CUDA a 16-bit model runs
in bfloat16 (autocast), and the parameters that adapters leave frozen stay in bfloat16 if stored so. Trained tensors are
rounded to their stored dtype when written, and zeros are counted after that.
"""

import re
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.folder import weight_files
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry, read_header
from core.engine.models.accelerator import default_device
from core.engine.models.folder import ModelFolder
from core.engine.models.loading import load_model
from core.engine.models.tensors import DTYPES, cast_weight, read_tensor, write_tensors
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.distill import distillation_loss
from core.engine.recovery.losses import next_token_loss
from core.engine.recovery.precision import (
    cast_weights,
    casts_weights,
    checkpoint_activations,
    training_precision,
    uncast_weights,
)
from core.engine.recovery.request import RECOVERIES, Recovery, kept_activation_bytes
from core.engine.recovery.sampling import Adaptive, InOrder, Source
from core.engine.recovery.trainable import OpenedModel, Teacher, Trainable, prepare, weight_names
from core.engine.recovery.training import Ending, Training
from core.engine.resume.store import ResumeStore, Runtime, file_sha256, fingerprint, tensors_sha256
from core.progress import Progress
from secateur_wire.errors import MissingTensors, ZerosRefilled

RECOVERED = "recovered"


@dataclass(frozen=True)
class Recovered:
    """Result of training.

    `files` hold the trained tensors under the names by which they are saved; `unchanged` are the positions of all
    others in the source. `zeros` are (before, after) of each checked linear layer. `losses` has one number per step,
    `loss_seconds` the seconds of training up to its end, and `hidden_errors` the error of the hidden states where they
    are matched.
    """

    files: list[Path]
    unchanged: list[TensorEntry]
    zeros: dict[str, tuple[int, int]]
    losses: list[float]
    loss_seconds: list[float]
    hidden_errors: list[float]
    ending: Ending
    trained: str
    trained_parameters: int
    tokens: int
    seconds: float
    resumed_from: int
    processes: int
    rounds: list[dict[str, Any]]


def recover(
    folder: ModelFolder,
    recovery: Recovery,
    windows_NT: Tensor,
    *,
    linears: Sequence[str],
    work: Path,
    previous: Sequence[Path] = (),
    teacher: Teacher | None = None,
    sources: Sequence[Source] = (),
    removed_layers: Collection[int] = (),
    device: torch.device | None = None,
    progress: Progress | None = None,
    activation_budget_bytes: int = 0,
) -> Recovered:
    """Train the model of `folder` on token sequences [sequences, time].

    A recovery in stages trains on the sequences of all `sources` in turn. `linears` are the layers whose zeros are
    counted, and kept. `work` is this attempt's folder, `previous` those of earlier attempts, the newest first; the
    newest saved step is resumed. Activations are kept for the backward where they fit the budget, else computed twice.
    `removed_layers` are the teacher's layers that pruning removed. In a run of several processes every one calls this;
    all return the same, and the main one has written the files.

    Raises WorkStopped, RecoveryDiverged, ZerosRefilled, and InvalidRequest for a recovery that does not fit the model.
    """
    started = time.monotonic()
    recovery = complete_recovery(recovery, folder.description, windows_NT.shape[1])
    device = device or default_device()
    accelerator, frozen_dtype = training_precision(DTYPES[folder.description.dtype], device)
    stored, learns = DTYPES[folder.description.dtype], RECOVERIES[recovery.method].learns_from_model
    is_cast = recovery.lora is None and casts_weights(stored, accelerator.device, learns_from_model=learns)
    frozen_dtype = torch.bfloat16 if is_cast else frozen_dtype
    torch.manual_seed(recovery.seed)
    model = load_model(folder, accelerator.device, dtype=frozen_dtype if recovery.lora else torch.float32)
    _require_complete(folder, model)
    for name in folder.family.other_modules:
        model.get_submodule(name).requires_grad_(False)
    freeze_experts(model, folder.family)
    if recovery.lora is not None or kept_activation_bytes(folder.description, recovery) > activation_budget_bytes:
        checkpoint_activations(model)
    parameters = [name for name, _ in model.named_parameters()]
    buffers = [name for name, _ in folder.saved_buffers(model)]
    opened = OpenedModel(folder, model, recovery, linears, teacher, accelerator.device, frozen_dtype, removed_layers)
    trainable = prepare(opened)
    module, changed = trainable.module, trainable.changed
    if is_cast:
        cast_weights(model)
    loss = distillation_loss(opened) if learns else next_token_loss
    facts = _facts(opened, windows_NT, sources) | {"processes": accelerator.num_processes}
    runtime = Runtime.of(accelerator.device, frozen_dtype)
    sampling = Adaptive(sources, recovery) if recovery.stages else InOrder(len(windows_NT), recovery)
    training = Training(
        module,
        windows_NT,
        recovery,
        loss=loss,
        rule=trainable.rule,
        accelerator=accelerator,
        store=ResumeStore(work, fingerprint("recover", facts, runtime), previous),
        progress=progress or Progress(),
        sampling=sampling,
    )
    trained_parameters = sum(each.numel() for each in module.parameters() if each.requires_grad)
    training.run()
    if is_cast:
        uncast_weights(model)
    merged = trainable.merge()
    if accelerator.is_main_process:
        _write(folder, dict(merged.named_parameters()), changed, work / RECOVERED)
    accelerator.wait_for_everyone()
    files = sorted((work / RECOVERED).glob("*.safetensors"))
    return Recovered(
        files=files,
        unchanged=folder.stored_entries({*parameters, *buffers} - set(changed), work / "untrained.safetensors"),
        zeros=_zeros(folder, files, linears),
        losses=training.losses,
        loss_seconds=training.pace.seconds,
        hidden_errors=training.hidden_errors,
        ending=training.pace.ending(len(training.losses)) or "steps",
        trained=describe_trained(trainable, folder.family),
        trained_parameters=trained_parameters,
        tokens=len(training.losses) * recovery.batch_size * windows_NT.shape[1],
        seconds=time.monotonic() - started,
        resumed_from=training.resumed_from,
        processes=accelerator.num_processes,
        rounds=sampling.rounds,
    )


def _require_complete(folder: ModelFolder, model: PreTrainedModel) -> None:
    """Raise MissingTensors for parameters that the files lack; `from_pretrained` would initialise them at random."""
    missing = [name for name, _ in model.named_parameters() if name not in folder.tensors]
    if missing:
        raise MissingTensors(f"the files lack {', '.join(missing[:3])}", param="model")


def _write(folder: ModelFolder, parameters: dict[str, nn.Parameter], changed: Sequence[str], target: Path) -> None:
    """Write trained tensors in their stored dtypes, a file for each block and one for the rest.

    Raises InvalidRequest for a value beyond the range of float16.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    blocks = re.compile(re.escape(folder.family.blocks) + r"\.([0-9]+)\.")
    groups: dict[str, list[str]] = {}
    for name in changed:
        block = blocks.match(name)
        groups.setdefault(f"block-{int(block[1]):05d}" if block else "outer", []).append(name)
    for group, names in groups.items():
        tensors = {
            folder.family.stored_name(name): cast_weight(
                name, parameters[name].detach(), _stored_dtype(folder.tensors[name])
            )
            for name in names
        }
        write_tensors(target / f"{group}.safetensors", tensors)


def _stored_dtype(entry: TensorEntry) -> torch.dtype:
    return DTYPES[WEIGHT_DTYPES[entry.dtype]]


def _zeros(folder: ModelFolder, files: Sequence[Path], linears: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the zeros of each linear layer in the source and in the result; raises ZerosRefilled if one was lost."""
    written = {folder.family.module_name(key): entry for file in files for key, entry in read_header(file).items()}
    counts: dict[str, tuple[int, int]] = {}
    for linear, name in zip(linears, weight_names(linears), strict=True):
        before = folder.read(name) == 0
        after = read_tensor(written[name]) == 0 if name in written else before
        refilled = int((before & ~after).sum())
        if refilled:
            raise ZerosRefilled(f"recovery filled {refilled} of the {int(before.sum())} pruned weights of {linear}")
        counts[linear] = (int(before.sum()), int(after.sum()))
    return counts


def _facts(opened: OpenedModel, windows_NT: Tensor, sources: Sequence[Source]) -> dict[str, object]:
    """Return the facts on which the trained weights depend, in one process."""
    folder, recovery, teacher = opened.folder, opened.recovery, opened.teacher
    return {
        "recovery": recovery.model_dump(mode="json", exclude={"dataset", "samples", "teacher", "checkpoint_every"}),
        "files": [file_sha256(file) for file in (folder.path / "config.json", *weight_files(folder.path))],
        "windows": tensors_sha256(windows_NT),
        "sources": [(len(each.windows_NT), each.holdout_NT.tolist(), each.reference) for each in sources],
        "linears": sorted(opened.linears),
        "teacher": teacher and teacher.revision,
        "removed_layers": sorted(opened.removed_layers),
    }


def freeze_experts(model: PreTrainedModel, family: Architecture) -> None:
    """Freeze experts and routers, and all other parameters of blocks outside prunable linear layers."""
    experts = family.experts
    if experts is None:
        return
    rows = () if experts.routing is None else experts.routing.rows
    for block in model.get_submodule(family.blocks).children():
        for name, parameter in block.named_parameters():
            is_expert = name.startswith(f"{experts.module}.") or name in rows
            if is_expert or name.rpartition(".")[0] in family.left_alone or name in family.left_alone:
                parameter.requires_grad_(False)


def describe_trained(trainable: Trainable, family: Architecture) -> str:
    return trainable.trained if family.experts is None else f"{trainable.trained}, outside experts and routers"
