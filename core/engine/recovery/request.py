"""Recovery: training that wins back quality after weights are gone. What a request may say, and what it means."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from core.engine.architectures.description import ModelDescription
from core.errors import InvalidRequest
from core.validation import RequestObject

RecoveryMethod = Literal["finetune", "lora", "distill"]

TRAINING_TOKENS = 2048
"""Most tokens in a forward of training, where a sequence is not longer: the parts of a batch are accumulated."""
DEFAULT_SEQUENCE_LENGTH = 512
"""Sequence length where neither the request nor its calibration sets it, and the model's context is not shorter."""
_LEARNING_RATE_FULL = 2e-5
_LEARNING_RATE_LORA = 1e-4
_LEARNING_RATE_IMAGES = 1e-3

_ROUND_STEPS = 50

_Name = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class Lora(RequestObject, frozen=True):
    """Low-rank adapters (Hu 2021, arXiv:2106.09685), W + alpha/r · BA; the defaults are LLM-Pruner's (Ma 2023)."""

    r: int = Field(8, ge=1, le=1024, description="Rank.")
    alpha: float = Field(16, gt=0, le=1e6, description="The update is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Annotated[list[_Name], Field(min_length=1, max_length=500)] | None = Field(
        None,
        description="Linear layers that are adapted: a module name such as 'down_proj', or a glob over full names. "
        "Unset: all linear layers of all blocks.",
    )


class RecoveryStage(RequestObject, frozen=True):
    """Texts that are trained on together, for a number of steps at most."""

    datasets: Annotated[list[_Name], Field(min_length=1, max_length=16)]
    steps: int = Field(ge=1, le=1_000_000)


class Recovery(RequestObject, frozen=True):
    """Training after pruning. Pruned weights stay zero, to the last one, whatever the method."""

    method: RecoveryMethod = Field(
        description="finetune: every parameter is trained, pruned weights held at zero. lora: low-rank adapters on the "
        "linear layers, merged into the surviving weights. distill: either, against the original model's predictions."
    )
    steps: int = Field(
        200, ge=1, le=1_000_000, description="Optimiser steps. With stages, those of all of them together."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak, of AdamW. Unset: 1e-4 with adapters, 2e-5 without, 1e-3 for image classifiers.",
    )
    batch_size: int = Field(8, ge=1, le=65_536, description="Sequences in a step.")
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the rate rises, linearly.")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="How the rate falls to zero afterwards.")
    dataset: _Name | None = Field(None, description="The text to train on. Unset: the calibration's.")
    stages: Annotated[list[RecoveryStage], Field(min_length=1, max_length=4)] | None = Field(
        None,
        description="In place of dataset and steps: stages one after the other, such as pre-training texts and then "
        "instructions, as LoRAShear recovers. In each, sequences are drawn from its datasets in proportion to how much "
        "worse the model is on each than the dense one, measured again after every round; it ends early once a round "
        "has won back nothing.",
    )
    resample_every: int | None = Field(
        None, ge=1, le=1_000_000, description="Steps of a round of a stage. Unset: 50, with stages."
    )
    samples: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Different sequences to train on. Unset: as many as the steps take, or all there are if fewer.",
    )
    sequence_length: int | None = Field(
        None,
        ge=2,
        le=1_048_576,
        description="Tokens in a sequence. Unset: the calibration's, else 512, or the model's context if shorter.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the order of the sequences, the adapters and dropout.")
    lora: Lora | None = Field(
        None, description="The adapters of lora and distill. For distill, null trains every parameter instead."
    )
    temperature: float | None = Field(
        None, gt=0, le=1000, description="distill: both models' logits are divided by it. Unset: 1."
    )
    teacher: _Name | None = Field(
        None, description="distill, with method recover only: the model to learn from, named as models are."
    )
    checkpoint_every: int = Field(50, ge=1, le=1_000_000, description="Steps after which training is saved.")


def complete_recovery(
    requested: Recovery, description: ModelDescription, sequence_length: int | None = None
) -> Recovery:
    """Fill in the defaults, `sequence_length` (tokens) among them.

    Raises InvalidRequest for what does not apply to the method or the model, naming it.
    """
    if requested.method != "distill":
        for name in ("temperature", "teacher"):
            if getattr(requested, name) is not None:
                raise _inapplicable(name, requested.method, "distill")
    if requested.method == "finetune" and requested.lora is not None:
        raise _inapplicable("lora", requested.method, "lora and distill")
    _check_stages(requested)
    lora = requested.lora
    if requested.method == "lora" or (requested.method == "distill" and "lora" not in requested.model_fields_set):
        lora = lora or Lora()
    for target in (lora and lora.targets) or []:
        if not any(linear.matches([target]) for linear in description.linears):
            raise InvalidRequest(
                f"recovery.lora.targets: {target!r} matches no linear layer; layer 0 has "
                f"{', '.join(linear.name for linear in description.linears if linear.layer == 0)}",
                param="recovery.lora.targets",
            )
    length = requested.sequence_length or min(sequence_length or DEFAULT_SEQUENCE_LENGTH, description.context_length)
    if length > description.context_length:
        raise InvalidRequest(
            f"recovery.sequence_length {length} is longer than the model's context of {description.context_length} "
            "tokens",
            param="recovery.sequence_length",
        )
    return requested.model_copy(
        update={
            "lora": lora,
            "learning_rate": requested.learning_rate or (_LEARNING_RATE_LORA if lora else _LEARNING_RATE_FULL),
            "temperature": (requested.temperature or 1.0) if requested.method == "distill" else None,
            "sequence_length": length,
            "steps": sum(stage.steps for stage in requested.stages) if requested.stages else requested.steps,
            "resample_every": (requested.resample_every or _ROUND_STEPS) if requested.stages else None,
        }
    )


def complete_image_recovery(requested: Recovery) -> Recovery:
    """Fill in the defaults for an image classifier, whose every parameter is trained on labelled images.

    Raises InvalidRequest for what belongs to language models, naming it.
    """
    if requested.method == "lora":
        raise InvalidRequest(
            "recovery.method: lora adapts language models; an image classifier is recovered with finetune or distill",
            param="recovery.method",
        )
    for name in ("lora", "stages", "resample_every", "sequence_length", "teacher"):
        if getattr(requested, name) is not None:
            raise InvalidRequest(f"recovery.{name} belongs to language models: leave it out", param=f"recovery.{name}")
    if requested.method == "finetune" and requested.temperature is not None:
        raise _inapplicable("temperature", requested.method, "distill")
    return requested.model_copy(
        update={
            "learning_rate": requested.learning_rate or _LEARNING_RATE_IMAGES,
            "temperature": (requested.temperature or 1.0) if requested.method == "distill" else None,
        }
    )


def _check_stages(requested: Recovery) -> None:
    """Require that stages and other fields agree; raises InvalidRequest for one that excludes or needs stages."""
    if requested.stages is None:
        if requested.resample_every is not None:
            raise InvalidRequest(
                "recovery.resample_every belongs to stages: leave it out, or say what they are",
                param="recovery.resample_every",
            )
        return
    for name in ("dataset", "samples"):
        if getattr(requested, name) is not None:
            raise InvalidRequest(
                f"recovery.{name} and stages exclude each other: leave one out", param=f"recovery.{name}"
            )
    total = sum(stage.steps for stage in requested.stages)
    if "steps" in requested.model_fields_set and requested.steps != total:
        raise InvalidRequest(
            f"recovery.steps: the stages have {total} steps together: leave it out", param="recovery.steps"
        )
    for number, stage in enumerate(requested.stages):
        for place, name in enumerate(stage.datasets):
            if name in stage.datasets[:place]:
                where = f"recovery.stages.{number}.datasets.{place}"
                raise InvalidRequest(f"{where}: {name!r} is named twice", param=where)


def stage_texts(recovery: Recovery) -> list[tuple[str, str, RecoveryStage]]:
    """Return, for each text of each stage, its name, its path in the body, and the stage."""
    return [
        (name, f"recovery.stages.{number}.datasets.{place}", stage)
        for number, stage in enumerate(recovery.stages or [])
        for place, name in enumerate(stage.datasets)
    ]


def sequences_at_once(recovery: Recovery) -> int:
    """Return the sequences in a forward of training, into which a step's batch is divided; images go all at once."""
    if recovery.sequence_length is None:
        return recovery.batch_size
    return min(recovery.batch_size, max(1, TRAINING_TOKENS // recovery.sequence_length))


def _inapplicable(name: str, method: str, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"recovery.{name} belongs to {where} and does not apply to {method}: leave it out", param=f"recovery.{name}"
    )
