"""Request of a recovery: training that regains quality after pruning."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from secateur_wire.chat import Answers, CountedTokens, Shape
from secateur_wire.requests import RequestObject

_Name = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class Lora(RequestObject, frozen=True):
    """Low-rank adapters (Hu 2021, arXiv:2106.09685), W + alpha/r · BA; the defaults are LLM-Pruner's (Ma 2023)."""

    r: int = Field(8, ge=1, le=1024, description="Rank of the adapters.")
    alpha: float = Field(16, gt=0, le=1e6, description="The update is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Annotated[list[_Name], Field(min_length=1, max_length=500)] | None = Field(
        None,
        description="Linear layers that get adapters: a module name such as 'down_proj', or a pattern over full "
        "names. Unset: all linear layers of all blocks.",
    )


class RecoveryStage(RequestObject, frozen=True):
    """Texts that are trained on together, for a maximum number of steps."""

    datasets: Annotated[list[_Name], Field(min_length=1, max_length=16)]
    steps: int = Field(ge=1, le=1_000_000)


class Recovery(RequestObject, frozen=True):
    """Training after pruning. All pruned weights stay zero, with every method."""

    method: str
    steps: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="Optimiser steps; with stages, of all stages together. Unset, with minutes: as many as the time "
        "allows.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Minutes after which training ends, unless its steps end earlier. The learning rate is zero by "
        "then. The result depends on how fast the worker is.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. Unset: 1e-4 with adapters, 2e-5 without; distill without adapters "
        "2e-4; image classifiers 1e-3.",
    )
    batch_size: int = Field(8, ge=1, le=65_536, description="Sequences in a step.")
    warmup_ratio: float = Field(
        0.05, ge=0, le=1, description="Share of the steps in which the learning rate rises, linearly, to its peak."
    )
    schedule: Literal["cosine", "linear"] = Field(
        "cosine", description="How the learning rate falls to zero afterwards."
    )
    dataset: _Name | None = Field(None, description="The text to train on. Unset: the calibration's.")
    stages: Annotated[list[RecoveryStage], Field(min_length=1, max_length=4)] | None = Field(
        None,
        description="In place of dataset and steps: stages of training, one after the other, such as general texts "
        "and then instructions, as LoRAShear recovers. A stage draws sequences from its datasets, and more from "
        "those on which the model has lost more than on others. The losses are measured again after every round. A "
        "stage ends early when a round has gained nothing.",
    )
    resample_every: int | None = Field(
        None, ge=1, le=1_000_000, description="Number of steps in a round of a stage. Unset, with stages: 50."
    )
    samples: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Number of different sequences to train on. Unset: as many as the steps take, or all there are "
        "if fewer.",
    )
    sequence_length: int | None = Field(
        None,
        ge=2,
        le=1_048_576,
        description="Tokens in a sequence. Unset: the calibration's, else 512, or the model's context if shorter.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the order of the sequences, the adapters and dropout.")
    lora: Lora | None = Field(
        None,
        description="The adapters of lora and distill. Unset: adapters of rank 8; distill trains every parameter where "
        "heads, channels or layers were removed. null: distill trains every parameter.",
    )
    train_embeddings: bool | None = Field(
        None,
        description="Without adapters: train embeddings and head too. Unset: yes, except with distill, which trains "
        "the blocks' weights and norms, and the last norm.",
    )
    own_text: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="distill: share of the sequences that the teacher writes itself, at most 128. The teacher is the "
        "model to learn from. Unset: 0.25; none with stages or if the dataset is 'self'.",
    )
    shape: Shape | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Language models: shape of the text that a model writes itself (the dataset self, or own_text). "
        "text: running text, the default. chat: conversations in its own chat template.",
    )
    answers: Answers | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Conversations: whose answers are trained on. dataset: those of the set, the default. self: those "
        "that the model before pruning writes.",
    )
    counted_tokens: CountedTokens | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Conversations: the tokens whose prediction is trained. all: the default. assistant: the "
        "assistant's words alone.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="distill: temperature, by which the logits of both models are divided. Unset: 1.",
    )
    label_weight: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="distill: weight of the loss on the text's own next tokens, or on images' labels. The rest is "
        "the weight of the teacher's predictions. Unset: 0.",
    )
    hidden_states: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="distill, language models: weight of the difference between the hidden states after each block "
        "and the teacher's, relative to the teacher's, added to the loss on predictions. After a block that was "
        "followed by removed layers, the teacher's state after the last of those is used. Unset: 0.",
    )
    teacher: _Name | None = Field(
        None,
        description="distill, only with method recover: the teacher, which is the model to learn from, named "
        "as models are.",
    )
    checkpoint_every: int = Field(
        50, ge=1, le=1_000_000, description="Number of steps after which training is saved, to go on from there."
    )
