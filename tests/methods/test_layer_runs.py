"""The layers that cost least, and the number of layers that does: against every other."""

from collections.abc import Callable
from itertools import combinations, groupby
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.streams.block_gradients import backward_blocks
from core.engine.pruning.streams.hidden_state_cache import HiddenStateCache
from core.engine.pruning.streams.stream import ActivationBudget
from core.methods.frontier import run_costs
from core.methods.frontier.layer_drop import find_local_minimum, most_trials
from core.methods.frontier.layer_search import least_costly
from core.methods.frontier.run_costs import RunCosts
from tests.engine.tiny import make_model, make_tokens

MOST = 7


def runs_of(layers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where each run of adjacent layers begins, and ends before."""
    places = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), key=lambda each: each[1] - each[0])]
    return [(run[0], run[-1] + 1) for run in places]


def total(layers: tuple[int, ...], cost: Callable[[int, int], float]) -> float:
    return sum(cost(first, end) for first, end in runs_of(layers))


@given(st.integers(0, 2**31 - 1), st.integers(2, MOST), st.integers(0, MOST), st.sets(st.integers(0, MOST - 1)))
def test_no_other_set_of_so_many_layers_costs_less(seed: int, layers: int, number: int, staying: set[int]) -> None:
    costs = torch.rand(MOST, MOST + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    staying = {each for each in staying if each < layers}

    def cost(first: int, end: int) -> float:
        return float(costs[first][end])

    chosen = least_costly(layers, number, staying, cost)
    free = [layer for layer in range(layers) if layer not in staying]
    assert len(chosen) == min(number, len(free)) and staying.isdisjoint(chosen)
    least = min(total(each, cost) for each in combinations(free, len(chosen)))
    assert total(tuple(chosen), cost) == pytest.approx(least)


def test_a_run_goes_where_its_end_is_near_its_beginning_and_single_layers_where_not() -> None:
    def near(first: int, end: int) -> float:
        return 0.1 if (first, end) == (2, 5) else 0.08 * (end - first)

    assert least_costly(8, 3, {0}, near) == [2, 3, 4]
    assert least_costly(8, 3, {3}, lambda first, end: (end - first) ** 3 + first) == [0, 2, 4]


@pytest.mark.parametrize("kept", [2048, 20])
def test_a_run_costs_what_its_change_of_the_stream_does_to_the_loss_by_the_whole_models_gradients(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare all tokens where all are kept, every third where fewer are."""
    monkeypatch.setattr(run_costs, "STREAM_TOKENS", kept)
    folder, tokens = make_model(tmp_path / "model", "gpt2"), make_tokens(3, 20)
    streamed = StreamedModel(open_model(folder), dtype=torch.float32, device=torch.device("cpu"))
    layers = len(streamed)
    costs = RunCosts(layers, tokens)
    cache = HiddenStateCache(ActivationBudget(2**20), tmp_path / "scratch")
    backward_blocks(
        streamed,
        tokens,
        torch.float32,
        [()] * layers,
        lambda *_: None,
        squares=False,
        cache=cache,
        on_stream=costs.see,
    )
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    blocks = model.get_submodule(open_model(folder).family.blocks)
    streams: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_pre_hook(lambda _, arguments: streams.append(arguments[0]))
    blocks[-1].register_forward_hook(
        lambda _, __, output: streams.append(output[0] if isinstance(output, tuple) else output)
    )
    labels = tokens[:, 1:]
    logits = model(tokens).logits[:, :-1]
    gradients = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="sum"), streams
    )
    stride = 1 if kept > tokens.numel() else 3
    predictions = labels.numel() * len(range(0, 20, stride)) / 20
    for end in range(1, layers + 1):
        for first in range(end):
            moved = ((streams[end] - streams[first]) * gradients[end]).sum(dim=-1)[:, ::stride]
            expected = float(moved.detach().square().sum()) / predictions / 2
            assert costs.cost(first, end) == pytest.approx(expected, rel=1e-3, abs=1e-12)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True), st.integers(0, 7))
def test_the_descent_ends_at_the_least_where_values_fall_and_then_rise(values: list[int], turn: int) -> None:
    falling, rising = sorted(values[:turn], reverse=True), sorted(values[turn:])
    asked: set[int] = set()

    def value(place: int) -> int:
        asked.add(place)
        return [*falling, *rising][place]

    place = find_local_minimum(len(values), value)
    assert value(place) == min(values)
    assert len(asked) <= most_trials(len(values)), "each place is asked for once, as the values are kept"
