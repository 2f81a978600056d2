"""Recovery: training that wins back quality after weights are gone. What a request may say, and what it means."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.catalogue.model_folder import ModelDescription
from core.errors import InvalidRequest

RecoveryMethod = Literal["finetune", "lora", "distill"]

TRAINING_TOKENS = 2048
"""Tokens a forward of training holds at most, where a sequence is not longer: what is left of a batch accumulates."""
DEFAULT_SEQUENCE_LENGTH = 512
"""Tokens, where neither the request nor its calibration says, and the model's context is not shorter."""
_LEARNING_RATE_FULL = 2e-5
_LEARNING_RATE_LORA = 1e-4

_Name = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(_Part):
    """Low-rank adapters (Hu 2021, arXiv:2106.09685), W + alpha/r · BA; the defaults are LLM-Pruner's (Ma 2023)."""

    r: int = Field(8, ge=1, le=1024, description="Rank.")
    alpha: float = Field(16, gt=0, le=1e6, description="The update is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Annotated[list[_Name], Field(min_length=1, max_length=500)] | None = Field(
        None,
        description="Linear layers that are adapted: a module name such as 'down_proj', or a glob over full names. "
        "Unset: all linear layers of all blocks.",
    )


class Recovery(_Part):
    """Training after pruning. Pruned weights stay zero, to the last one, whatever the method."""

    method: RecoveryMethod = Field(
        description="finetune: every parameter is trained, pruned weights held at zero. lora: low-rank adapters on the "
        "linear layers, merged into the surviving weights. distill: either, against the original model's predictions."
    )
    steps: int = Field(200, ge=1, le=1_000_000, description="Optimiser steps.")
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak, of AdamW. Unset: 1e-4 with adapters, 2e-5 without."
    )
    batch_size: int = Field(8, ge=1, le=65_536, description="Sequences in a step.")
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the rate rises, linearly.")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="How the rate falls to zero afterwards.")
    dataset: _Name | None = Field(None, description="The text to train on. Unset: the calibration's.")
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


def complete_recovery(asked: Recovery, description: ModelDescription, sequence_length: int | None = None) -> Recovery:
    """Fill in the defaults, `sequence_length` (tokens) among them.

    Raises InvalidRequest for what does not apply to the method or the model, naming it.
    """
    if asked.method != "distill":
        for name in ("temperature", "teacher"):
            if getattr(asked, name) is not None:
                raise _inapplicable(name, asked.method, "distill")
    if asked.method == "finetune" and asked.lora is not None:
        raise _inapplicable("lora", asked.method, "lora and distill")
    lora = asked.lora
    if asked.method == "lora" or (asked.method == "distill" and "lora" not in asked.model_fields_set):
        lora = lora or Lora()
    for target in (lora and lora.targets) or []:
        if not any(linear.matches([target]) for linear in description.linears):
            raise InvalidRequest(
                f"recovery.lora.targets: {target!r} matches no linear layer; layer 0 has "
                f"{', '.join(linear.name for linear in description.linears if linear.layer == 0)}",
                param="recovery.lora.targets",
            )
    length = asked.sequence_length or min(sequence_length or DEFAULT_SEQUENCE_LENGTH, description.context_length)
    if length > description.context_length:
        raise InvalidRequest(
            f"recovery.sequence_length {length} is longer than the model's context of {description.context_length} "
            "tokens",
            param="recovery.sequence_length",
        )
    return asked.model_copy(
        update={
            "lora": lora,
            "learning_rate": asked.learning_rate or (_LEARNING_RATE_LORA if lora else _LEARNING_RATE_FULL),
            "temperature": (asked.temperature or 1.0) if asked.method == "distill" else None,
            "sequence_length": length,
        }
    )


def sequences_at_once(recovery: Recovery) -> int:
    """Sequences in a forward of training; the batch of a step is taken in parts of so many."""
    assert recovery.sequence_length is not None
    return min(recovery.batch_size, max(1, TRAINING_TOKENS // recovery.sequence_length))


def _inapplicable(name: str, method: str, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"recovery.{name} belongs to {where} and does not apply to {method}: leave it out", param=f"recovery.{name}"
    )
