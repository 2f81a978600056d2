"""Small models of every architecture whose GGUF files are taken, written as llama.cpp's own converter writes them."""

from pathlib import Path

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from tests.gguf.files import Merges, add_byte_level, finish

_CLASSES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    "gpt2": (GPT2Config, GPT2LMHeadModel),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "phi3": (Phi3Config, Phi3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "stablelm": (StableLmConfig, StableLmForCausalLM),
    "starcoder2": (Starcoder2Config, Starcoder2ForCausalLM),
}
_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
_EPSILONS = {"gpt2": "layer_norm_epsilon", "stablelm": "layer_norm_eps", "starcoder2": "norm_epsilon"}
"""Names of what others call rms_norm_eps, as their norms are of that kind."""
_GPT2_SHAPE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


def small_model(architecture: str, vocab_size: int) -> PreTrainedModel:
    """Return the model with random weights, of which no two norms are alike either."""
    torch.manual_seed(0)
    config_class, model_class = _CLASSES[architecture]
    shape: dict[str, int | None] = dict(_GPT2_SHAPE if architecture == "gpt2" else _SHAPE)
    if "gemma" in architecture or architecture == "qwen3":
        shape["head_dim"] = 8
    if "gemma" in architecture:
        shape["query_pre_attn_scalar"] = 8
    model = model_class(config_class(vocab_size=vocab_size, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def write_architecture(file: Path, architecture: str, tokens: list[str], merges: Merges) -> PreTrainedModel:
    """Write the model's file and return the model."""
    model = small_model(architecture, len(tokens))
    config = model.config
    written_as = "llama" if architecture == "mistral" else architecture
    writer = GGUFWriter(file, written_as)
    writer.add_name(f"Small {architecture}")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(128 if architecture == "gpt2" else 48)
    writer.add_head_count(4)
    if architecture in _EPSILONS:
        writer.add_layer_norm_eps(getattr(config, _EPSILONS[architecture]))
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture != "gpt2":
        writer.add_head_count_kv(2)
        writer.add_rope_dimension_count(2 if architecture == "stablelm" else 8)
        writer.add_key_length(8)
        writer.add_value_length(8)
        writer.add_rope_freq_base(config.rope_parameters.get("rope_theta", 10000.0))
    add_byte_level(writer, "gpt-2", tokens, merges)
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == written_as)
    for name, weight in _tensors(model, architecture, arch).items():
        writer.add_tensor(name, weight.contiguous().numpy())
    finish(writer, file, {})
    return model


def _tensors(model: PreTrainedModel, architecture: str, arch: MODEL_ARCH) -> dict[str, torch.Tensor]:
    names = get_tensor_name_map(arch, 2)
    found = {}
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name is not None, key
        if architecture in ("llama", "mistral") and key.endswith(("q_proj.weight", "k_proj.weight")):
            heads = 4 if "q_proj" in key else 2  # llama.cpp rotates neighbours, transformers halves
            weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        if "gemma" in architecture and "norm" in key:
            weight = weight + 1
        if architecture == "gpt2" and weight.ndim == 2 and ".h." in key:
            weight = weight.T
        found[name] = weight
    return found
