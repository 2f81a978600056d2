"""A small model that judges low bits: the sample in rotated axes, whose weights lie on no grid of few bits.

It is a Llama model in other axes of its residual stream and of its values: the same function, with other weights.
SliceGPT (Ashkboos 2024, arXiv:2401.15024) and QuaRot (Ashkboos 2024, arXiv:2404.00456) rotate models in this way.
Values are those of bfloat16, in files of float32: a CPU without units for bfloat16 multiplies float32 nine times as
fast, and a job computes in the dtype of its files.

Suffixes of shapes: H dimensions of the stream, O outputs, I inputs, D dimensions of a head.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from bench.evaluate_cell import perplexity
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import evaluation_windows
from core.engine.models.folder import open_model

_COMPANIONS = ("tokenizer*", "chat_template*", "special_tokens*", "generation_config*")
_GRID = 32
"""Weights of a row that share a scale in the file that the sample comes from."""


@torch.inference_mode()
def make(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `model` in other axes into `place`; return what both are on windows of each of its `texts`.

    There are so many `windows` of `length` tokens.

    `perplexity` has those of the sample, the rotated model and the judge, which is rounded, by text. `levels` are the
    mean numbers of different values among 32 neighbours in a row, of the sample and of the judge.
    """
    place, output = Path(spec["model"]), Path(spec["place"])
    tokenizer = open_model(place).tokenizer()
    windows = {
        name: evaluation_windows(
            read_documents(Path(file), detect_format(Path(file))),
            tokenizer,
            samples=spec["windows"],
            length=spec["length"],
            name=name,
        )
        for name, file in spec["texts"].items()
    }
    dense = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    turned = rotated(dense)
    measured = {name: [perplexity(each, tokens_NT) for each in (dense, turned)] for name, tokens_NT in windows.items()}
    one_T = next(iter(windows.values()))[:1]
    difference = (turned(input_ids=one_T).logits - dense(input_ids=one_T).logits).abs().max()
    judge = turned.bfloat16().float()
    for name, tokens_NT in windows.items():
        measured[name].append(perplexity(judge, tokens_NT))
    judge.save_pretrained(output)
    for file in (file for pattern in _COMPANIONS for file in place.glob(pattern)):
        shutil.copyfile(file, output / file.name)
    return {
        "perplexity": measured,
        "logit_difference": float(difference),
        "levels": [levels(each) for each in (dense, judge)],
        "parameters": [each.num_parameters() for each in (dense, judge)],
    }


def levels(model: LlamaForCausalLM) -> float:
    """Return the mean number of different values among 32 neighbours in a row of the first layer's FFN."""
    parts = model.model.layers[0].mlp.up_proj.weight.unflatten(1, (-1, _GRID)).flatten(0, 1)
    ordered = parts.sort(dim=1).values
    return float(1 + (ordered.diff(dim=1) != 0).sum(dim=1).double().mean())


def random_rotation(size: int, draws: torch.Generator) -> Tensor:
    """Return a random orthogonal matrix [size, size] in float64, all directions being equally likely."""
    factors = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=draws))
    rotation: Tensor = factors.Q * factors.R.diagonal().sign()
    return rotation


@torch.no_grad()
def rotated(model: LlamaForCausalLM, seed: int = 0) -> LlamaForCausalLM:
    """Return a model that computes the same as this one, in axes that the seed draws.

    Gains of norms move into the matrices behind them, all but their mean size, because a norm commutes with a rotation
    only without them. Those of the last norm move into the head, which is therefore no longer tied to the embeddings.
    Values of a KV head are rotated too, and back in the output projection.
    """
    draws = torch.Generator().manual_seed(seed)
    config = LlamaConfig.from_dict(model.config.to_dict() | {"tie_word_embeddings": False})
    turned: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    nn.Module.to(turned, model.dtype)
    axes_HH = random_rotation(config.hidden_size, draws)
    turned.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.double() @ axes_HH)
    for layer, own in zip(model.model.layers, turned.model.layers, strict=True):
        attention, own_attention = layer.self_attn, own.self_attn
        size, groups = attention.head_dim, attention.num_key_value_groups
        heads = attention.k_proj.out_features // size
        values = [random_rotation(size, draws) for _ in range(heads)]
        gains_H = _moved_gains(layer.input_layernorm, own.input_layernorm)
        for name in ("q_proj", "k_proj", "v_proj"):
            weight_OH = attention.get_submodule(name).weight.double() * gains_H @ axes_HH
            if name == "v_proj":
                weight_OH = torch.block_diag(*values).T @ weight_OH
            own_attention.get_submodule(name).weight.copy_(weight_OH)
        back_II = torch.block_diag(*(value_DD for value_DD in values for _ in range(groups)))
        own_attention.o_proj.weight.copy_(axes_HH.T @ attention.o_proj.weight.double() @ back_II)
        gains_H = _moved_gains(layer.post_attention_layernorm, own.post_attention_layernorm)
        for name in ("gate_proj", "up_proj"):
            own.mlp.get_submodule(name).weight.copy_(layer.mlp.get_submodule(name).weight.double() * gains_H @ axes_HH)
        own.mlp.down_proj.weight.copy_(axes_HH.T @ layer.mlp.down_proj.weight.double())
    gains_H = _moved_gains(model.model.norm, turned.model.norm)
    turned.lm_head.weight.copy_(model.lm_head.weight.double() * gains_H @ axes_HH)
    return turned


def _moved_gains(norm: nn.Module, own: nn.Module) -> Tensor:
    """Leave the mean size of a norm's gains in the new model's norm, and return what is left of them [H], in float64.

    Without a size in the norm, the matrices behind it would be many times smaller than others.
    """
    gains_H = norm.get_parameter("weight").double()
    size = gains_H.square().mean().sqrt()
    own.get_parameter("weight").fill_(float(size))
    return gains_H / size
