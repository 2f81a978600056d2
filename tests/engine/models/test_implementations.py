"""Models are built with this project's choice of attention, which in blocks is as exact as torch's kernel."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from core.engine.checkpoints.code_choices import TOKENIZER_CLASSES
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import build_model, load_model
from core.engine.models.precision import attention_in_blocks
from core.engine.models.streamed import StreamedModel
from core.pipeline.stages.search import random_model
from tests.engine.tiny import make_model

CPU = torch.device("cpu")
KERNEL = "kernels-community/flash-attn"


def tampered(folder: ModelFolder) -> ModelFolder:
    """The opened folder as if its config had come past every check."""
    folder.config._attn_implementation = KERNEL
    folder.config._experts_implementation = KERNEL
    return dataclasses.replace(folder, config=folder.config)


@pytest.mark.parametrize(("name", "attention"), [("llama", "sdpa"), ("gpt2", "sdpa"), ("gemma2", "eager")])
def test_a_models_attention_is_this_projects_choice(name: str, attention: str, tmp_path: Path) -> None:
    path = make_model(tmp_path / "model", name)
    opened = open_model(path)
    for model in (
        load_model(tampered(open_model(path)), CPU),
        build_model(tampered(open_model(path)), torch.float32),
        StreamedModel(tampered(open_model(path)), dtype=torch.float32, device=CPU).model,
        random_model(opened, tampered(opened).config, torch.float32, CPU),
    ):
        assert (model.config._attn_implementation, model.config._experts_implementation) == (attention, "eager")


def test_a_tokenizer_class_that_is_taken_reads_data() -> None:
    backends = (transformers.TokenizersBackend, transformers.PythonBackend, transformers.SentencePieceBackend)
    kinds = {name: tokenizer_class_from_name(name) for name in TOKENIZER_CLASSES}
    assert [name for name, kind in kinds.items() if kind is not None and not issubclass(kind, backends)] == []


def _inputs(time: int, heads: int, groups: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of two sequences, whose values have another size."""
    generator = torch.Generator().manual_seed(time)
    shapes = ((2, heads, time, 48), (2, groups, time, 48), (2, groups, time, 32))
    queries, keys, values = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return queries, keys, values


def _module(heads: int, groups: int) -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = heads // groups
    return module


@pytest.mark.parametrize(("time", "heads", "groups"), [(129, 6, 2), (256, 4, 4), (300, 3, 1)])
@torch.inference_mode()
def test_blocks_are_nearer_to_exact_attention_than_the_kernel(time: int, heads: int, groups: int) -> None:
    module, inputs = _module(heads, groups), _inputs(time, heads, groups)
    kernel, _ = sdpa_attention_forward(module, *inputs, None, scaling=0.11)
    exact, _ = sdpa_attention_forward(module, *(each.double() for each in inputs), None, scaling=0.11)
    with attention_in_blocks():
        attention = partial(ALL_ATTENTION_FUNCTIONS["sdpa"], module, *inputs, None, scaling=0.11)
        blocks, weights = attention()
        with ThreadPoolExecutor(1) as other:
            assert torch.equal(other.submit(torch.inference_mode()(attention)).result()[0], kernel)
    assert weights is None and blocks.shape == kernel.shape and blocks.dtype is torch.bfloat16
    assert (blocks - exact).norm() <= 1.1 * (kernel - exact).norm()


@torch.inference_mode()
def test_what_blocks_cannot_do_keeps_the_kernel() -> None:
    module, long = _module(4, 2), _inputs(200, 4, 2)
    mask = torch.ones(200, 200, dtype=torch.bool)
    asked = [
        (_inputs(64, 4, 2), None, {}),
        (_inputs(200, 4, 2, torch.float32), None, {}),
        (long, mask, {}),
        (long, None, {"is_causal": False}),
    ]
    for inputs, attention_mask, keywords in asked:
        kernel, _ = sdpa_attention_forward(module, *inputs, attention_mask, **keywords)
        with attention_in_blocks():
            answer, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *inputs, attention_mask, **keywords)
        assert torch.equal(answer, kernel)
