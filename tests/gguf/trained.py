"""Small models that have learnt their lines: their predictions are far from uniform, so that a wrong file shows.

Each is trained once, and kept in the cache folder by what made it.
"""

import hashlib
import inspect
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from core.engine.exporters import probe_lines
from core.engine.exporters.probe_lines import varied_lines

LINES = varied_lines(400)
STEPS: Final = 40
"""Steps after which a mistake in Llama's files shows: seconds."""
MINUTE: Final = 2000
"""Steps after which a mistake in any family's files shows: about a minute of one core."""
_TAUGHT: Final = 8000
"""Count of lines to learn from: too many to be learnt by heart, which would make of rounding a matter of chance."""
_KEPT: Final = Path(__file__).parents[2] / ".cache" / "gguf" / "trained"
_SHAPE: Final[dict[str, object]] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
_GEMMA: Final[dict[str, object]] = _SHAPE | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 40}
FAMILIES: Final[Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "llama": ("LlamaConfig", _SHAPE | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", _SHAPE | {"sliding_window": 96}),
    "qwen2": ("Qwen2Config", _SHAPE | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", _SHAPE | {"head_dim": 32}),
    "qwen3-tied": ("Qwen3Config", _SHAPE | {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2Config", _GEMMA | {"final_logit_softcapping": 12.0, "attn_logit_softcapping": 9.0}),
    "gemma3": ("Gemma3TextConfig", _GEMMA | {"num_hidden_layers": 6}),
    "gpt2": ("GPT2Config", {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 256,
        "bos_token_id": 1, "eos_token_id": 0}),
    "olmo2": ("Olmo2Config", _SHAPE),
    "phi3": ("Phi3Config", _SHAPE | {"sliding_window": 96}),
    "granite": ("GraniteConfig", _SHAPE | {"embedding_multiplier": 3.0, "attention_multiplier": 0.2,
        "residual_multiplier": 0.4, "logits_scaling": 2.0}),
    "smollm3": ("SmolLM3Config", _SHAPE | {"num_hidden_layers": 4}),
    "starcoder2": ("Starcoder2Config", _SHAPE | {"sliding_window": 96}),
    "stablelm": ("StableLmConfig", _SHAPE | {"use_qkv_bias": True}),
    "stablelm-parallel": ("StableLmConfig", _SHAPE | {"use_parallel_residual": True}),
    "gpt-neox": ("GPTNeoXConfig", _SHAPE | {"num_key_value_heads": None}),
    "glm": ("GlmConfig", _SHAPE | {"head_dim": 32}),
}  # fmt: skip
_EXPERTS: Final = {"num_experts": 6, "num_experts_per_tok": 2}
_ROUTED: Final = {"n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 128,
    "first_k_dense_replace": 1, "num_hidden_layers": 3}  # fmt: skip
_LATENT: Final = _ROUTED | {"num_key_value_heads": 4, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 32}  # fmt: skip
_YARN: Final = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
_GRANITE_MOE: Final = {"num_local_experts": 6, "num_experts_per_tok": 2, "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2, "residual_multiplier": 0.4, "logits_scaling": 2.0}  # fmt: skip
MIXTURES: Final[Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "mixtral": ("MixtralConfig", _SHAPE | {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "qwen2-moe": ("Qwen2MoeConfig", _SHAPE | _EXPERTS | {"moe_intermediate_size": 128,
        "shared_expert_intermediate_size": 96}),
    "qwen3-moe": ("Qwen3MoeConfig", _SHAPE | _EXPERTS | {"moe_intermediate_size": 128, "norm_topk_prob": True,
        "head_dim": 32}),
    "olmoe": ("OlmoeConfig", _SHAPE | _EXPERTS | {"num_key_value_heads": 4}),
    "granite-moe": ("GraniteMoeConfig", _SHAPE | _GRANITE_MOE),
    "granite-moe-shared": ("GraniteMoeSharedConfig", _SHAPE | _GRANITE_MOE | {"shared_intermediate_size": 96}),
    "deepseek-v2": ("DeepseekV2Config", _SHAPE | _LATENT | {"n_shared_experts": 2, "q_lora_rank": None,
        "rope_parameters": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}}),
    "deepseek-v3": ("DeepseekV3Config", _SHAPE | _LATENT | {"q_lora_rank": 64, "n_group": 2, "topk_group": 1,
        "rope_parameters": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}, "num_mtp_layers": 0}),
    "glm4-moe": ("Glm4MoeConfig", _SHAPE | _ROUTED | {"head_dim": 32, "use_qk_norm": True, "attention_bias": True,
        "routed_scaling_factor": 1.5, "num_mtp_layers": 0}),
    "gpt-oss": ("GptOssConfig", _SHAPE | {"num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 128,
        "head_dim": 32, "sliding_window": 40, "rope_parameters": _YARN | {"truncate": True}}),
}  # fmt: skip
"""Mixtures of experts, whose architecture is discovered."""
OTHERS: Final[Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "opt": ("OPTConfig", {"hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": None, "bos_token_id": 1,
        "eos_token_id": 0}),
}  # fmt: skip
"""Families that llama.cpp does not have."""
_ALL: Final = {**FAMILIES, **MIXTURES, **OTHERS}


def architecture_of(family: str) -> str:
    """Return the class of transformers whose models a family's are."""
    config = getattr(transformers, _ALL[family][0])
    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type])


def save_trained(folder: Path, family: str = "llama", training_steps: int = STEPS, **changes: object) -> Path:
    """Save a model with its tokenizer; `changes` are of its config."""
    kept = _KEPT / _key(family, training_steps, json.dumps(changes, sort_keys=True))
    if not kept.exists():
        _KEPT.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=_KEPT) as place:
            _train(Path(place) / "model", family, training_steps, changes)
            with suppress(OSError):  # another process was first, with the same
                (Path(place) / "model").rename(kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return folder


def _key(family: str, training_steps: int, changes: str) -> str:
    """Return the name of what a model is made by: its settings, what trains it and makes its lines, the libraries."""
    libraries = [version(each) for each in ("torch", "transformers", "tokenizers")]
    facts = json.dumps([_ALL[family], training_steps, changes, _TAUGHT, len(LINES), libraries, _SOURCES])
    return f"{family}-{training_steps}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def _train(folder: Path, family: str, training_steps: int, changes: Mapping[str, object]) -> None:
    tokenizer = _tokenizer("qwen" in family)
    torch.manual_seed(0)
    kind, shape = _ALL[family]
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **{**shape, **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # biases and norms begin alike, and would hide one in another's place
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.1 * torch.randn_like(buffer))
    ids = _taught("qwen" in family)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, max(training_steps, 1))
    for _ in range(training_steps):
        starts = torch.randint(0, len(ids) - 64, (4,))
        batch = torch.stack([ids[start : start + 64] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@cache
def _taught(is_normalised: bool) -> torch.Tensor:
    return torch.tensor(_tokenizer(is_normalised)("\n".join(varied_lines(_TAUGHT)))["input_ids"])


@cache
def _tokenizer(is_normalised: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    if is_normalised:
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=500,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|begin|>"],
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|endoftext|>")


_SOURCES: Final = [inspect.getsource(each) for each in (_train, _taught, _tokenizer, probe_lines)]
"""Read as they are imported: what is read later may have been changed meanwhile."""
