"""The floor under the benchmark's times: the products nobody gets around, at the rates that were measured."""

from pathlib import Path

import pytest
import torch

from bench.machine import Products, products
from core.engine.architectures.description import inspect_folder
from core.engine.pruning.input_statistics import add_gram
from tests.model_folders import write_llama

RATES = {"float32": 100.0, "bfloat16": 400.0}


def test_gram_matrices_count_one_triangle_at_the_rate_of_the_forward_s_values() -> None:
    needed = Products(forward=4000, gram=2000)
    assert needed.seconds(RATES, "float32") == 4000 / 100 + 2000 / 100
    assert needed.seconds(RATES, "bfloat16") == 4000 / 400 + 2000 / 400
    slow = {"float32": 100.0, "bfloat16": 50.0}  # bfloat16 values may as well be multiplied in float32
    assert needed.seconds(slow, "bfloat16") == 4000 / 50 + 2000 / 100


@pytest.mark.parametrize("width", [16, 32])
def test_the_floor_counts_less_than_the_engine_multiplies_and_more_than_half_of_the_square(
    width: int, tmp_path: Path
) -> None:
    model = inspect_folder(write_llama(tmp_path / "model", layers=2, hidden=width, intermediate=2 * width))
    tokens = 10
    needed = products(model, "sparsegpt", tokens)
    assert needed is not None and products(model, "magnitude", tokens) is None
    wanda = products(model, "wanda", tokens)
    assert wanda == Products(2 * tokens * sum(linear.numel for linear in model.linears), 0)
    assert needed.forward == wanda.forward
    triangles = 0  # of what the layers read: attention's input and output, the FFN's input, its channels
    for each in 2 * [width, width, width, 2 * width]:
        gram = torch.zeros(each, each)
        add_gram(gram, torch.ones(tokens, each))
        assert bool((gram.triu() == tokens * torch.ones(each, each).triu()).all())
        triangles += int(torch.ones(each, each).triu().sum())
    assert needed.gram == 2 * tokens * triangles
