"""A Llama-like model of any size with random weights, written block by block, and random tokens to calibrate on."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig

from core.engine.checkpoints.files import INDEX_FILE
from core.engine.models.tensors import write_tensors

VOCABULARY = 8192
HEAD_SIZE = 64


def write_model(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `output`: config, one safetensors shard for each block, and tokens.safetensors beside them."""
    width, layers = spec["width"], spec["layers"]
    inner, head_size = spec.get("intermediate", 3 * width), spec.get("head_size", HEAD_SIZE)
    heads, vocabulary = width // head_size, spec.get("vocabulary", VOCABULARY)
    key_width = head_size * spec.get("key_value_heads", heads)
    dtype = getattr(torch, spec.get("dtype", "float32"))
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator).div(columns**0.5).to(dtype)

    def norm() -> Tensor:
        return torch.ones(width, dtype=dtype)

    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_width // head_size,
        tie_word_embeddings=True,
        dtype=str(dtype).removeprefix("torch."),
    )
    output = Path(spec["output"])
    config.save_pretrained(output)
    weight_map: dict[str, str] = {}

    def write_shard(number: int, tensors: dict[str, Tensor]) -> None:
        name = f"model-{number:05d}-of-{layers + 1:05d}.safetensors"
        write_tensors(output / name, tensors)
        weight_map.update(dict.fromkeys(tensors, name))

    write_shard(1, {"model.embed_tokens.weight": matrix(vocabulary, width), "model.norm.weight": norm()})
    for layer in range(layers):
        shapes = {f"self_attn.{each}_proj": (key_width if each in "kv" else width, width) for each in "qkvo"}
        shapes |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
        tensors = {f"{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        tensors |= {f"{name}.weight": norm() for name in ("input_layernorm", "post_attention_layernorm")}
        write_shard(layer + 2, {f"model.layers.{layer}.{name}": each for name, each in tensors.items()})
    (output / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    tokens_NT = torch.randint(vocabulary, (spec["samples"], spec["length"]), generator=generator)
    write_tensors(output / "tokens.safetensors", {"tokens": tokens_NT})
    return {"model_bytes": sum(file.stat().st_size for file in output.glob("model-*.safetensors"))}
