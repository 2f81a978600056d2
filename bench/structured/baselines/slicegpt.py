"""SliceGPT: the residual stream is rotated to its principal components between blocks, and the least are sliced off
(Ashkboos 2024, arXiv:2401.15024), as many everywhere.

With C = Σ XᵀX of what a norm without weights gives and C = QΛQᵀ, what reads the stream becomes W·diag(α)·QD (α the
norm's weights, D the first `width` columns), what is added to it DᵀQ'ᵀW, and the shortcut between two norms DᵀQᵀQ'D.
Embeddings and head stay as they are, and tied, with a rotation after the one and before the other: to rotate both would
untie them, which costs a small model more than is sliced off.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.structured.baselines.walk import Walk, dense_model, linear, set_weight
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import build_model
from core.engine.models.tensors import load_tensors, write_tensors

SLICED_FILE = "sliced.json"
WEIGHTS_FILE = "sliced.safetensors"


class _Norm(nn.Module):
    """RMSNorm without weights; of a sliced stream the mean is over the features there were before."""

    def __init__(self, features: int, epsilon: float) -> None:
        super().__init__()
        self._features = features
        self._epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * torch.rsqrt(hidden.square().sum(-1, keepdim=True) / self._features + self._epsilon)


class _Block(nn.Module):
    """A block of Llama whose shortcuts rotate the stream."""

    def __init__(self, block: nn.Module, width: int, features: int, epsilon: float) -> None:
        super().__init__()
        self.self_attn, self.mlp = block.get_submodule("self_attn"), block.get_submodule("mlp")
        self.norm = _Norm(features, epsilon)
        self.attention_shortcut = nn.Linear(width, width, bias=False)
        self.ffn_shortcut = nn.Linear(width, width, bias=False)

    def forward(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        attended, _ = self.self_attn(hidden_states=self.norm(hidden_states), **keywords)
        middle: Tensor = self.attention_shortcut(hidden_states) + attended
        result: Tensor = self.ffn_shortcut(middle) + self.mlp(self.norm(middle))
        return result


class _Embedding(nn.Module):
    def __init__(self, embedding: nn.Module, width: int, features: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.rotation = nn.Linear(features, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        rotated: Tensor = self.rotation(self.embedding(tokens))
        return rotated


class _FinalNorm(nn.Module):
    def __init__(self, width: int, features: int, epsilon: float) -> None:
        super().__init__()
        self.norm = _Norm(features, epsilon)
        self.rotation = nn.Linear(width, features, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        rotated: Tensor = self.rotation(self.norm(hidden))
        return rotated


def sliced_parameters(width: int, features: int, inner: int, attention: int, key_value: int, layers: int) -> int:
    """All but embeddings and head, at a width of the stream: the rotations too. `inner` is the FFN's width, `attention`
    and `key_value` those of queries and of keys.
    """
    linears = (2 * attention + 2 * key_value + 3 * inner) * width
    return layers * (linears + 2 * width * width) + 2 * features * width


def width_for(folder: ModelFolder, parameters: int) -> int:
    """The width at which blocks and rotations together come nearest to so many parameters."""
    config = folder.config
    attention, key_value = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    sizes = (config.hidden_size, config.intermediate_size, attention, key_value, config.num_hidden_layers)
    return min(range(1, config.hidden_size + 1), key=lambda width: abs(sliced_parameters(width, *sizes) - parameters))


def slice_shapes(model: PreTrainedModel, width: int) -> None:
    """Give a Llama the modules of a stream of that width, their weights unset."""
    decoder, features, epsilon = model.model, model.config.hidden_size, model.config.rms_norm_eps
    decoder.embed_tokens = _Embedding(decoder.embed_tokens, width, features)
    decoder.norm = _FinalNorm(width, features, epsilon)
    for number, block in enumerate(decoder.layers):
        for reader in _readers(block):
            set_weight(reader, torch.empty(reader.out_features, width))
        for writer in _writers(block):
            set_weight(writer, torch.empty(width, writer.in_features))
        decoder.layers[number] = _Block(block, width, features, epsilon)


def slice_model(folder: ModelFolder, tokens_NT: Tensor, width: int) -> PreTrainedModel:
    """The dense model with the stream rotated to its principal components, and `width` of them left."""
    model = dense_model(folder)
    with torch.inference_mode():
        rotations = _rotations(model, tokens_NT, width)
    scales = [(block.input_layernorm.weight, block.post_attention_layernorm.weight) for block in model.model.layers]
    final = model.model.norm.weight
    weights = [[each.weight for each in (*_readers(block), *_writers(block))] for block in model.model.layers]
    slice_shapes(model, width)
    with torch.no_grad():
        model.model.embed_tokens.rotation.weight.copy_(rotations[0].T)
        model.model.norm.rotation.weight.copy_(final[:, None] * rotations[-1])
        for number, block in enumerate(model.model.layers):
            entry, middle, exit_ = rotations[2 * number : 2 * number + 3]
            query, key, value, gate, up, output, down = weights[number]
            before, after = scales[number]
            attention, ffn = block.self_attn, block.mlp
            for reader, weight in ((attention.q_proj, query), (attention.k_proj, key), (attention.v_proj, value)):
                reader.weight.copy_((weight * before) @ entry)
            for reader, weight in ((ffn.gate_proj, gate), (ffn.up_proj, up)):
                reader.weight.copy_((weight * after) @ middle)
            attention.o_proj.weight.copy_(middle.T @ output)
            ffn.down_proj.weight.copy_(exit_.T @ down)
            block.attention_shortcut.weight.copy_(middle.T @ entry)
            block.ffn_shortcut.weight.copy_(exit_.T @ middle)
    return model


def _rotations(model: PreTrainedModel, tokens_NT: Tensor, width: int) -> list[Tensor]:
    """QD [features, width] before each norm in turn, the last one too. The stream is kept in its own basis, less what
    was sliced off so far.
    """
    decoder = model.model
    walk = Walk.begin(model, decoder.layers, tokens_NT)
    norm = _Norm(model.config.hidden_size, model.config.rms_norm_eps)
    found: list[Tensor] = []

    def rotate() -> None:
        total = torch.zeros(model.config.hidden_size, model.config.hidden_size, dtype=torch.float64)
        for hidden in walk.hidden:
            rows = norm(hidden).flatten(0, -2)
            total += (rows.T @ rows).double()
        rotation = torch.linalg.eigh(total).eigenvectors.flip(1)[:, :width].float()
        walk.hidden = [hidden @ rotation @ rotation.T for hidden in walk.hidden]
        found.append(rotation)

    for block in decoder.layers:
        rotate()
        normed = (block.input_layernorm(hidden) for hidden in walk.hidden)
        attended = (block.self_attn(hidden_states=each, **walk.keywords)[0] for each in normed)
        walk.hidden = [hidden + each for hidden, each in zip(walk.hidden, attended, strict=True)]
        rotate()
        walk.hidden = [hidden + block.mlp(block.post_attention_layernorm(hidden)) for hidden in walk.hidden]
    rotate()
    return found


def _readers(block: nn.Module) -> list[nn.Linear]:
    return [linear(block, f"self_attn.{name}_proj") for name in "qkv"] + [
        linear(block, f"mlp.{name}_proj") for name in ("gate", "up")
    ]


def _writers(block: nn.Module) -> list[nn.Linear]:
    return [linear(block, "self_attn.o_proj"), linear(block, "mlp.down_proj")]


def save_sliced(model: PreTrainedModel, folder: ModelFolder, output: Path, width: int) -> None:
    """Write a folder that `load_sliced` opens: config and tokenizer are those of the source, which it names."""
    output.mkdir(parents=True, exist_ok=True)
    named = dict(model.named_parameters())  # tied ones once
    write_tensors(output / WEIGHTS_FILE, named)
    (output / SLICED_FILE).write_text(json.dumps({"source": str(folder.path), "width": width}))


def load_sliced(place: Path) -> PreTrainedModel:
    """Load a model that `save_sliced` wrote."""
    facts = json.loads((place / SLICED_FILE).read_text())
    model = empty_sliced(open_model(Path(facts["source"])), facts["width"])
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_tensors(place / WEIGHTS_FILE).items():
            named[name].copy_(tensor)
    return model


def empty_sliced(folder: ModelFolder, width: int) -> PreTrainedModel:
    """The shape alone, with random weights, in float32."""
    model = build_model(folder, torch.float32)
    model.eval().requires_grad_(False)
    slice_shapes(model, width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    return model
