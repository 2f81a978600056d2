"""Trials of shapes: models pruned on some calibration tokens, compared by how far their predictions diverge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from core.counting import counting
from core.engine.datasets.counted_tokens import counted_places, number_of_places
from core.engine.datasets.token_windows import evenly_spaced
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.blocks.trial import hidden_states_after_trial
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.methods.descriptions.frontier import LayerDrop, find_local_minimum, most_trials

_CHUNK = 256
"""Positions whose predictions are computed at a time."""
_PARTS = 4
"""Smallest number of calibration sequences for trials; also, trials are measured on one sequence in this many at most.
"""


@dataclass(frozen=True)
class ShapeToTry:
    """Counts to try, and their description for the report."""

    label: str
    counts: UnitCounts


@dataclass(frozen=True)
class Trials:
    """Trials of whole models that `method` prunes.

    The measure is the divergence between the predictions of the trial and of the dense model. `dense_ends` are the
    dense model's last outputs, [1, time, hidden_size], as far as they are known, by the number of the calibration
    sequence.
    """

    context: UnitSelectionContext
    method: BlockUnitMethod
    drop: LayerDrop
    dense_ends: Mapping[int, Tensor]

    @property
    def are_possible(self) -> bool:
        """Return True if there is enough calibration text to fit on some and to measure on other."""
        return len(self._calibration()) >= _PARTS

    def best(self, candidates: Sequence[ShapeToTry], alike: str) -> UnitCounts:
        """Return the counts of the best model; the candidates are in the order of their numbers of dropped layers.

        All of them are `alike` in what the words say.
        """
        context = self.context
        fitted_NT, seen_NT = self._fitting_sequences(), self._calibration()[self._evaluation_numbers()]
        batches = seen_NT.split(context.micro_batch)
        dense = self._dense_outputs(seen_NT)
        tried: dict[int, float] = {}

        def tried_at(place: int) -> float:
            if place not in tried:
                count(len(tried))
                counts = candidates[place].counts
                ends = hidden_states_after_trial(context, self.method, counts, recorded, seen_NT)
                tried[place] = divergence(context.streamed, batches, dense, ends)
                context.log(f"trial, {candidates[place].label}: {tried[place]:.4f} nats")
            return tried[place]

        context.begin_trials()
        with (
            context.stream("recorded", fitted_NT, keeps_all=True) as recorded,
            counting("trials of whole layers, at most", most_trials(len(candidates))) as count,
        ):
            recorded.pass_blocks("passing blocks forward")
            best = candidates[find_local_minimum(len(candidates), tried_at)]
        figures = "; ".join(f"{candidates[place].label}: {tried[place]:.4f}" for place in sorted(tried))
        note = (
            f"Whole layers against channels, by trials of models of {alike}, pruned on "
            f"{fitted_NT.numel():,} calibration tokens: divergence from the dense model's predictions on "
            f"{seen_NT.numel():,} others, in nats a token: {figures}. Taken: {best.label}."
        )
        return best.counts.model_copy(update={"notes": [*best.counts.notes, note]})

    def _dense_outputs(self, seen_NT: Tensor) -> Sequence[Tensor]:
        """Return the dense model's last outputs for the batches of the sequences that trials are measured on."""
        context, numbers = self.context, self._evaluation_numbers()
        if self.dense_ends.keys() >= {*numbers}:
            ends = iter(self.dense_ends[number] for number in numbers)
            batches = seen_NT.split(context.micro_batch)
            return [context.streamed.one_batch([*islice(ends, len(each))]) for each in batches]
        with context.stream("seen", seen_NT) as stream:
            stream.pass_blocks("passing blocks forward")
            return [hidden for _, hidden in stream.batches()]

    def _evaluation_numbers(self) -> list[int]:
        """Return the numbers of the sequences that trials are measured on: evenly spaced, at most a quarter of all."""
        sequences, length = self._calibration().shape
        return evenly_spaced(sequences, min(max(1, self.drop.seen // length), sequences // _PARTS))

    def _fitting_sequences(self) -> Tensor:
        """Return the sequences that trials are fitted on: evenly spaced among those that trials are not measured on."""
        calibration_NT, evaluation = self._calibration(), {*self._evaluation_numbers()}
        rest = [number for number in range(len(calibration_NT)) if number not in evaluation]
        most = max(1, self.drop.fitted_tokens(calibration_NT.numel()) // calibration_NT.shape[1])
        return calibration_NT[[rest[each] for each in evenly_spaced(len(rest), most)]]

    def _calibration(self) -> Tensor:
        assert self.context.calibration is not None
        return self.context.calibration


def label_without(dropped: Sequence[int]) -> str:
    """Return the description of a model without these layers."""
    return f"without layer{'s' if len(dropped) > 1 else ''} {', '.join(map(str, dropped))}" if dropped else "all layers"


@torch.inference_mode()
def divergence(
    streamed: StreamedModel, tokens: Sequence[Tensor], dense: Sequence[Tensor], other: Sequence[Tensor]
) -> float:
    """Return the mean of KL(dense‖other) over predictions, in nats; the other model has the dense one's norm and head.

    The inputs are batches of tokens [batch, time], and each model's last-block outputs for them [batch, time,
    hidden_size]. Predictions of tokens that do not count are left out. They are computed for one window and a few
    positions at a time, and compared one by one: so their distributions stay in a processor's cache.
    """
    total = torch.zeros((), dtype=torch.float64, device=streamed.device)
    for tokens_BT, *both in zip(tokens, dense, other, strict=True):
        for window, tokens_1T in enumerate(tokens_BT.split(1)):
            states = [streamed.sequences_of(each, window, 1).to(streamed.dtype) for each in both]
            places_T, all_T = counted_places(tokens_1T), torch.arange(tokens_BT.shape[1])
            for positions in (all_T if places_T is None else all_T[places_T]).split(_CHUNK):
                logits = [streamed.logits(tokens_1T, each, positions)[0].float() for each in states]
                for wanted_PV, other_PV in zip(*(each.split(1) for each in logits), strict=True):
                    total += torch.nn.functional.kl_div(
                        other_PV.log_softmax(dim=-1), wanted_PV.log_softmax(dim=-1), reduction="sum", log_target=True
                    )
    return float(total) / sum(map(number_of_places, tokens))
