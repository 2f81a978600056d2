"""Request of a recovery: training that restores quality after pruning."""

from typing import Annotated

from pydantic import Field

from core.engine.recovery.registry import RECOVERIES
from core.validation import RegisteredId
from secateur_wire import recovery as wire

TRAINING_TOKENS = 2048
"""Most tokens in a training forward, unless one sequence is longer; the parts of a batch are accumulated."""
_MOST_SEQUENCES = 4096
"""Limit of different sequences where minutes bound the training, so that a large text is not read in full."""
_MOST_OWN_SEQUENCES = 128


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
