"""Tiny model folders and texts, written without torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def write_llama(
    folder: Path, *, layers: int = 2, hidden: int = 16, intermediate: int = 24, seed: int = 0, context: int = 64
) -> Path:
    """A Llama with random weights: 64 words, contexts of `context` tokens, 2 heads, float32."""
    generator = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (64, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (64, hidden)}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{block}.self_attn.{name}.weight"] = (hidden, hidden)
        shapes[f"{block}.mlp.gate_proj.weight"] = (intermediate, hidden)
        shapes[f"{block}.mlp.up_proj.weight"] = (intermediate, hidden)
        shapes[f"{block}.mlp.down_proj.weight"] = (hidden, intermediate)
        shapes[f"{block}.input_layernorm.weight"] = (hidden,)
        shapes[f"{block}.post_attention_layernorm.weight"] = (hidden,)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_alien(folder: Path, **changes: Any) -> Path:
    """Write a model whose architecture nobody listed."""
    write_llama(folder)
    config = json.loads((folder / "config.json").read_text())
    named = {"architectures": ["AlienForCausalLM"], "model_type": "alien"}
    (folder / "config.json").write_text(json.dumps(config | named | changes))
    return folder


def write_text(file: Path, *, words: int = 2000) -> Path:
    """A plain text of `words` words of five bytes, a passage every ten."""
    file.parent.mkdir(parents=True, exist_ok=True)
    passages = [" ".join(f"{number:04d}" for number in range(start, start + 10)) for start in range(0, words, 10)]
    file.write_text("\n\n".join(passages) + "\n")
    return file
