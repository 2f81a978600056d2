"""Request of a recovery: training that wins back quality after weights are gone."""

from typing import Annotated

from pydantic import Field

from core.engine.recovery.registry import RECOVERIES
from core.validation import RegisteredId
from secateur_wire import recovery as wire

TRAINING_TOKENS = 2048
"""Most tokens in a forward of training, where a sequence is not longer: the parts of a batch are accumulated."""
_MOST_SEQUENCES = 4096
"""Different sequences where minutes bound the training, so that a large text is not read whole for steps not taken."""
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
    """Return the most different sequences of a text that are trained on, unless `samples` says how many."""
    taken = recovery.steps * recovery.batch_size
    return taken if recovery.minutes is None else min(taken, _MOST_SEQUENCES)


def own_sequences(recovery: Recovery, others: int | None = None) -> int:
    """Return how many sequences the model to learn from writes beside `others` of a text, unset: as are asked for."""
    if not recovery.own_text:
        return 0
    share = recovery.own_text
    wanted = share * (recovery.samples or most_sequences(recovery)) if others is None else share / (1 - share) * others
    return max(1, min(round(wanted), _MOST_OWN_SEQUENCES))


def sequences_at_once(recovery: Recovery) -> int:
    """Return the sequences in a forward of training, into which a step's batch is divided; images go all at once."""
    if recovery.sequence_length is None:
        return recovery.batch_size
    return min(recovery.batch_size, max(1, TRAINING_TOKENS // recovery.sequence_length))
