"""Request of a recovery, the table of its methods, and the numbers that follow from it; without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from core.engine.architectures.description import ModelDescription
from core.validation import RegisteredId
from secateur_wire import recovery as wire

TRAINING_TOKENS = 2048
"""Most tokens in a training forward, unless one sequence is longer; the parts of a batch are accumulated."""
_MOST_SEQUENCES = 4096
"""Limit of different sequences where minutes bound the training, so that a large text is not read in full."""
_MOST_OWN_SEQUENCES = 128
_HIDDEN_COPIES = 16
"""Tensors of a block as wide as the hidden states: norms and their parts, residuals, attention and its rotations."""
_FFN_COPIES = 5


@dataclass(frozen=True)
class RecoveryMethod:
    """Method of recovery. `summary` is the text after its id where requests are described.

    `adapters`: whether low-rank adapters are trained in place of the weights; `unless null`: unless the request sets
    null. With `learns_from_model` it learns a teacher's predictions.
    """

    id: str
    summary: str
    adapters: Literal["never", "always", "unless null"]
    learns_from_model: bool = False
    trains_classifiers: bool = True


_METHODS = (
    RecoveryMethod("finetune", "trains every parameter while pruned weights stay zero", "never"),
    RecoveryMethod(
        "lora",
        "trains low-rank adapters on the linear layers and merges them into the remaining weights",
        "always",
        trains_classifiers=False,
    ),
    RecoveryMethod(
        "distill",
        "trains weights or adapters towards the original model's predictions",
        "unless null",
        learns_from_model=True,
    ),
)
RECOVERIES: Final = {each.id: each for each in _METHODS}


def recoveries_where(fits: Callable[[RecoveryMethod], bool]) -> list[str]:
    """Return the ids of the recoveries for which `fits` is true."""
    return [each.id for each in RECOVERIES.values() if fits(each)]


class Recovery(wire.Recovery, frozen=True):
    __doc__ = wire.Recovery.__doc__

    method: Annotated[str, RegisteredId(RECOVERIES)] = Field(
        description=" ".join(f"{each.id}: {each.summary}." for each in RECOVERIES.values())
    )


def stage_texts(recovery: Recovery) -> list[tuple[str, str, wire.RecoveryStage]]:
    """Return, for each text of each stage, its name, its path in the body, and the stage."""
    return [
        (name, f"recovery.stages.{number}.datasets.{place}", stage)
        for number, stage in enumerate(recovery.stages or [])
        for place, name in enumerate(stage.datasets)
    ]


def most_sequences(recovery: Recovery) -> int:
    """Return the largest number of different sequences of a text for training, where `samples` is not set."""
    taken = recovery.steps * recovery.batch_size
    return taken if recovery.minutes is None else min(taken, _MOST_SEQUENCES)


def own_sequences(recovery: Recovery, others: int | None = None) -> int:
    """Return the number of sequences that the teacher generates beside `others` of a text."""
    if not recovery.own_text:
        return 0
    share = recovery.own_text
    wanted = share * (recovery.samples or most_sequences(recovery)) if others is None else share / (1 - share) * others
    return max(1, min(round(wanted), _MOST_OWN_SEQUENCES))


def sequences_at_once(recovery: Recovery) -> int:
    """Return the number of sequences per training forward, a part of a step's batch; images go all at once."""
    if recovery.sequence_length is None:
        return recovery.batch_size
    return min(recovery.batch_size, max(1, TRAINING_TOKENS // recovery.sequence_length))


def kept_activation_bytes(description: ModelDescription, recovery: Recovery) -> int:
    """Return the bytes of all blocks' float32 activations, kept between forward and backward of trained weights."""
    tokens = sequences_at_once(recovery) * (recovery.sequence_length or 0)
    widest = max(each.out_features for each in description.linears if each.layer == 0)
    return 4 * tokens * description.layers * (_HIDDEN_COPIES * description.hidden_size + _FFN_COPIES * widest)
