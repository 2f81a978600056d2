"""Folders of models of one block as large as real ones, whose files take no room: all weights are zero."""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig

_VOCABULARY = 32000
LLAMAS = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_key_value_heads": 40},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8},
}


def write_large_model(folder: Path, size: str, layers: int = 1) -> Path:
    """Write the config, and a sparse file of bfloat16 weights, of the first blocks of a Llama of this size."""
    folder.mkdir(parents=True)
    shape = LLAMAS[size]
    config = LlamaConfig(
        vocab_size=_VOCABULARY, num_hidden_layers=layers, max_position_embeddings=4096, tie_word_embeddings=False,
        dtype=torch.bfloat16, architectures=["LlamaForCausalLM"], **shape,
    )  # fmt: skip
    config.save_pretrained(folder)
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    read = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    within = {
        "self_attn.q_proj": [hidden, hidden], "self_attn.k_proj": [read, hidden], "self_attn.v_proj": [read, hidden],
        "self_attn.o_proj": [hidden, hidden], "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner], "input_layernorm": [hidden], "post_attention_layernorm": [hidden],
    }  # fmt: skip
    shapes = {f"model.layers.{n}.{name}.weight": each for n in range(layers) for name, each in within.items()}
    shapes |= {f"{name}.weight": [_VOCABULARY, hidden] for name in ("model.embed_tokens", "lm_head")}
    shapes["model.norm.weight"] = [hidden]
    header, end = {}, 0
    for name, each in shapes.items():
        start, end = end, end + 2 * torch.Size(each).numel()
        header[name] = {"dtype": "BF16", "shape": each, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder
