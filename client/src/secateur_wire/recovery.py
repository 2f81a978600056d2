"""Request of a recovery: training that wins back quality after weights are gone."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from secateur_wire.requests import RequestObject

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


class Until(RequestObject, frozen=True):
    """End of training by what a minute of it gains."""

    gain_per_minute: float = Field(
        gt=0,
        lt=1,
        description="Least share of the loss on sequences held back that a minute has to win: 0.01 ends training once "
        "that falls by less than 1 % a minute. The rate then falls to zero in a tenth more steps.",
    )
    every: int = Field(50, ge=1, le=1_000_000, description="Steps between two measurements.")


class Recovery(RequestObject, frozen=True):
    """Training after pruning. Pruned weights stay zero, to the last one, whatever the method."""

    method: str
    steps: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="Optimiser steps. With stages, those of all of them together. Unset where minutes are given: as "
        "many as they allow.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Minutes of training, after which it ends if the steps have not ended it; the rate is then zero "
        "too. The result depends on how fast the worker is.",
    )
    until: Until | None = Field(
        None, description="Ends training once it gains less than this. The result depends on how fast the worker is."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak, of AdamW. Unset: 1e-4 with adapters, 2e-5 without, 2e-4 for distill without; 1e-3 for image "
        "classifiers.",
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
    train_embeddings: bool | None = Field(
        None,
        description="Without adapters: whether embeddings and head are trained as well. Unset: not by distill, which "
        "trains weights and norms of the blocks, and the last norm.",
    )
    own_text: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="distill: share of the sequences that the model to learn from writes itself, at most 128 of them. "
        "Unset: 0.25, none with stages or where the dataset is 'self'.",
    )
    temperature: float | None = Field(
        None, gt=0, le=1000, description="distill: both models' logits are divided by it. Unset: 1."
    )
    label_weight: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="distill: weight of the cross-entropy of the text's own next tokens, or of images' labels; the "
        "predictions of the model to learn from weigh the rest. Unset: 0.",
    )
    hidden_states: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="distill, of language models: weight of the error of the hidden states behind the blocks, relative "
        "to those of the model to learn from, beside the divergence of the predictions. Behind a block after which "
        "layers were removed, they are matched with those behind the last of these. Unset: 0, not matched.",
    )
    teacher: _Name | None = Field(
        None, description="distill, with method recover only: the model to learn from, named as models are."
    )
    checkpoint_every: int = Field(50, ge=1, le=1_000_000, description="Steps after which training is saved.")
