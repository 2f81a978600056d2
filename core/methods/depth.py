"""Removal of entire layers, by one of three criteria.

The criteria are: the measured perplexity; the angle between input and output of a run of layers (Gromov 2024,
arXiv:2403.17887); and the change that a layer makes to its input (ShortGPT, Men 2024, arXiv:2403.03853).
"""

import math
from contextlib import closing
from itertools import chain

import torch
from torch import Tensor

from core.counting import counted
from core.engine.datasets.counted_tokens import number_of_places
from core.engine.evaluation.perplexity import perplexity
from core.engine.models.streamed import call_block
from core.engine.pruning.streams.hidden_states import HiddenStates
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers import LayerPlan, first_removable_layers, removable_layers, removable_runs
from core.engine.resume.store import ResumeStore
from core.methods.descriptions.structured import QUICK_TOKENS, DepthParameters

_COMPARED_TOKENS = 1024
"""Largest number of tokens whose directions are kept; they are evenly spaced among all tokens."""


class Depth(UnitMethod):
    """Choice of the n layers to remove; x_l is the input of layer l.

    'angular' removes n adjacent layers, from the layer l for which the mean of arccos(x_l·x_{l+n} / ‖x_l‖‖x_{l+n}‖) / π
    is least. 'block_influence' removes the n layers of least 1 − cos(x_l, x_{l+1}). 'perplexity' is greedy: each step
    removes the layer whose absence leaves the lowest perplexity.
    """

    weight_reads = 1

    def __init__(self, parameters: DepthParameters) -> None:
        self.criterion = parameters.criterion
        self.tries_models = parameters.criterion == "perplexity"
        self.is_quick = parameters.budget == "quick"

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        if _count(context) == 0:
            return context.plan_of(context.without_layers([]))
        if self.criterion == "perplexity":
            store = ResumeStore(context.scratch, "")
            with closing(HiddenStates("inputs", store, context.budget, context.streamed.device)) as before:
                removed = self._by_perplexity(context, before)
        else:
            removed = self._by_direction(context)
        context.log(f"layers removed: {', '.join(map(str, sorted(removed)))}")
        return context.plan_of(context.without_layers(removed))

    def _by_direction(self, context: UnitSelectionContext) -> list[int]:
        assert context.calibration is not None
        count, description = _count(context), context.folder.description
        directions = StreamDirections(context, context.calibration)
        if self.criterion == "angular":
            angles = {start: directions.angle(start, start + count) for start in removable_runs(description, count)}
            start = min(angles, key=lambda each: angles[each])
            return list(range(start, start + count))
        influence = [directions.influence(layer, layer + 1) for layer in range(context.layers)]
        ordered = sorted(range(context.layers), key=lambda layer: influence[layer])
        return first_removable_layers(description, ordered, count)

    @torch.inference_mode()
    def _by_perplexity(self, context: UnitSelectionContext, before: HiddenStates) -> list[int]:
        """Return the layers to remove; `before` keeps the inputs of the remaining layers, by place."""
        assert context.calibration is not None
        sequences = max(1, QUICK_TOKENS // context.calibration.shape[1]) if self.is_quick else len(context.calibration)
        tokens = list(context.calibration[:sequences].split(context.micro_batch))
        streamed, dtype = context.streamed, context.forward_dtype
        arguments = RecordedArguments(streamed, dtype)
        blocks = [streamed.fill_block(n, streamed.read_block(n), dtype) for n in range(context.layers)]
        kept = list(range(context.layers))
        candidates = set(kept)

        def run(batch: int, hidden: Tensor, layers: list[int]) -> Tensor:
            for layer in layers:
                hidden = call_block(blocks[layer], hidden, arguments.of(tokens[batch])[layer])
            return hidden

        def store_inputs(start: int, first: list[Tensor]) -> None:
            """Store the input of each remaining layer, from the position `start` and its input `first` on."""
            for batch, hidden in enumerate(counted(first, "running what is left on batches")):
                for place in range(start, len(kept)):
                    before.put(place, batch, hidden)
                    hidden = run(batch, hidden, [kept[place]])

        def without(place: int) -> float:
            ends = (run(batch, before.get(place, batch), kept[place + 1 :]) for batch in range(len(tokens)))
            return perplexity(streamed, zip(tokens, ends, strict=True))

        store_inputs(0, [streamed.embed(each).to(dtype) for each in tokens])
        removed: list[int] = []
        count = _count(context)
        for _ in counted(range(count), "layers to remove"):
            may_go = set(removable_layers(context.folder.description, removed))
            open_ones = may_go & candidates or may_go
            tried = [(place, layer) for place, layer in enumerate(kept) if layer in open_ones]
            perplexities = {layer: without(place) for place, layer in counted(tried, "trying the model without each")}
            if self.is_quick and not removed:
                candidates = set(sorted(perplexities, key=lambda layer: perplexities[layer])[: 2 * count])
            best = min(perplexities, key=lambda layer: perplexities[layer])
            context.log(f"without layer {best}: perplexity {perplexities[best]:.3f} on {len(tokens)} batches")
            place = kept.index(best)
            given = [before.get(place, batch) for batch in range(len(tokens))]
            kept.remove(best)
            candidates.discard(best)
            removed.append(best)
            store_inputs(place, given)
        for layer in range(context.layers):
            streamed.empty_block(layer)
        return removed


def _count(context: UnitSelectionContext) -> int:
    """Return the number of layers to remove."""
    assert isinstance(context.removal, LayerPlan)
    return context.removal.removed


class StreamDirections:
    """Directions of x_l for some of the tokens [N, T]; x_l is the residual stream before layer l, x_L after the last.

    Only tokens that count are taken. Only one block has its weights in memory at a time. The directions of each token,
    one for every x_l, are kept in main memory.
    """

    def __init__(self, context: UnitSelectionContext, tokens_NT: Tensor) -> None:
        stride = max(1, math.ceil(number_of_places(tokens_NT) / _COMPARED_TOKENS))
        seen: list[list[Tensor]] = [[] for _ in range(context.layers + 1)]

        places = [context.streamed.places(each) for each in tokens_NT.split(context.micro_batch)]

        def keep(index: int, batch: int, hidden_BTD: Tensor) -> None:
            flat, places_N = hidden_BTD.flatten(0, 1), places[batch]
            flat = (flat if places_N is None else flat[places_N.to(flat.device)])[::stride].float().cpu()
            seen[index].append(flat / flat.norm(dim=-1, keepdim=True))

        with context.stream("directions", tokens_NT) as stream:
            for index in chain(stream.through_blocks("passing blocks forward"), [context.layers]):
                for batch, hidden in stream.batches():
                    keep(index, batch, hidden)
        self._directions = [torch.cat(each) for each in seen]

    def cosine(self, first: int, end: int) -> Tensor:
        """Return the cosine between x_first and x_end for each token: [tokens]."""
        return (self._directions[first] * self._directions[end]).sum(-1).clamp(-1, 1)

    def angle(self, first: int, end: int) -> float:
        """Return the mean angle between x_first and x_end, as a share of π (Gromov 2024, arXiv:2403.17887)."""
        return float(self.cosine(first, end).arccos().mean()) / math.pi

    def influence(self, first: int, end: int) -> float:
        """Return the influence of layers `first` to `end` − 1: the mean of 1 − cos(x_first, x_end).

        For a single layer this is ShortGPT's block influence (Men 2024, arXiv:2403.03853).
        """
        return float(1 - self.cosine(first, end).mean())
