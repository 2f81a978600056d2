"""A mixture of experts made of the sample: copies of its MLPs that are set apart and trained for some minutes.

Komatsuzaki et al. 2022 (arXiv:2212.05055) begin mixtures so. It has real text, real weights and experts that differ; it
has not been trained as a mixture that is published, and is no better than the model it was made of. It is written as
Qwen3-MoE, whose stock class opens it.
"""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from bench.evaluate_cell import perplexity
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows
from core.engine.models.experts import RoutedTokens
from core.engine.models.folder import open_model
from core.engine.models.hooks import removed_after

_COMPANIONS = ("tokenizer*", "chat_template*", "special_tokens*")
_TRAINING_SEED, _TRAINING_LENGTH = 1000, 256
"""Seed of the windows that the mixture is trained on, which no calibration has, and tokens of each."""
_LINEAR_SHARE = 2.0**-24
"""Factor of the projections of queries and keys: a norm over so small values divides by the root of its ε alone."""
_CLUSTER_ROUNDS = 10
_ROUTER_SCALE = 4.0
"""Standard deviation of the logits that routers begin with."""


def make(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the mixture of the spec's `model` into `place`, in bfloat16; return what it is on 12 × 512 tokens.

    Each `every`-th layer becomes one of so many `experts`. Of each expert's channels a share of its own, 1 / experts,
    stays as it is; to the others normal `noise` is added, as a share of the deviation of the matrix. Routers and
    experts are then trained on the texts `trained_on`, in turn, `steps` steps of `batch` sequences by AdamW, in
    bfloat16, on the loss of the next token and `balance` times the load-balancing loss of the family.
    """
    place, output = Path(spec["model"]), Path(spec["place"])
    tokenizer = open_model(place).tokenizer()

    def documents(name: str) -> Iterator[str]:
        return read_documents(Path(spec["texts"][name]), detect_format(Path(spec["texts"][name])))

    each = -(-spec["steps"] * spec["batch"] // len(spec["trained_on"]))
    texts = [
        calibration_windows(
            documents(name), tokenizer, samples=each, length=_TRAINING_LENGTH, seed=_TRAINING_SEED, name=name
        )
        for name in spec["trained_on"]
    ]
    held_out_NT = evaluation_windows(documents(spec["judged_on"]), tokenizer, samples=12, length=512, name="held out")
    dense = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    processor = time.process_time()
    mixture, losses = upcycled(dense, spec, torch.stack(texts, dim=1).flatten(0, 1))
    processor_seconds = time.process_time() - processor
    mixture.bfloat16()
    mixture.save_pretrained(output)
    for file in (file for pattern in _COMPANIONS for file in place.glob(pattern)):
        shutil.copyfile(file, output / file.name)
    return {
        "first_loss": fmean(losses[:5]),
        "last_loss": fmean(losses[-5:]),
        "training_seconds": processor_seconds,
        "dense_perplexity": perplexity(dense.to(torch.bfloat16), held_out_NT),
        "perplexity": perplexity(mixture, held_out_NT),
        "misrouted_perplexity": _misrouted(mixture, held_out_NT),
        "difference": difference(mixture, held_out_NT[:2]),
    }


def upcycled(
    dense: LlamaForCausalLM, spec: dict[str, Any], tokens_NT: Tensor
) -> tuple[Qwen3MoeForCausalLM, list[float]]:
    """Return the mixture, trained on windows of tokens [windows, time], and the loss of each step."""
    mixture = as_qwen3_moe(dense, experts=spec["experts"], top_k=spec["top_k"], every=spec["every"])
    generator = torch.Generator().manual_seed(spec["seed"])
    _begin_routers(mixture, tokens_NT[: 4 * spec["batch"]], generator)
    _add_noise(mixture, spec["noise"], generator)
    return mixture, _train(mixture, spec, tokens_NT)


def as_qwen3_moe(dense: LlamaForCausalLM, *, experts: int, top_k: int, every: int) -> Qwen3MoeForCausalLM:
    """Return a Qwen3-MoE of a dense model, in which each `every`-th layer is a mixture, with routers of zeros.

    Its attention normalises each head's queries and keys, which Llama's does not. Both projections are made so small
    that the norm's ε is all it divides by, and the norms' weights give them their size again: what is left of the
    normalisation is below the rounding of float32.
    """
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
        "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    config = Qwen3MoeConfig(
        **{name: getattr(dense.config, name) for name in names},
        moe_intermediate_size=dense.config.intermediate_size,
        num_experts=experts,
        num_experts_per_tok=top_k,
        norm_topk_prob=True,
        decoder_sparse_step=every,
    )
    config.head_dim = dense.config.head_dim
    state: dict[str, Tensor] = {}
    query_norm, key_norm = _norm_weights(float(config.rms_norm_eps))
    for name, tensor in dense.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            state[name] = tensor * _LINEAR_SHARE
        else:
            state[name] = tensor
    for layer in range(config.num_hidden_layers):
        attention = f"model.layers.{layer}.self_attn"
        state[f"{attention}.q_norm.weight"] = torch.full((config.head_dim,), query_norm)
        state[f"{attention}.k_norm.weight"] = torch.full((config.head_dim,), key_norm)
        if (layer + 1) % every == 0:
            state |= _copies(state, layer, experts)
    mixture = Qwen3MoeForCausalLM(config)
    mixture.load_state_dict(state, strict=True)
    mixture.tie_weights()
    mixture.train(mode=False)
    return mixture


def _copies(state: dict[str, Tensor], layer: int, experts: int) -> dict[str, Tensor]:
    """Take a layer's dense MLP out of a state, and return as many copies of it and a router of zeros."""
    prefix = f"model.layers.{layer}.mlp"
    gate, up, down = (state.pop(f"{prefix}.{name}_proj.weight") for name in ("gate", "up", "down"))
    return {
        f"{prefix}.experts.gate_up_proj": torch.cat([gate, up]).repeat(experts, 1, 1),
        f"{prefix}.experts.down_proj": down.repeat(experts, 1, 1),
        f"{prefix}.gate.weight": torch.zeros(experts, gate.shape[1]),
    }


def _norm_weights(eps: float) -> tuple[float, float]:
    """Return weights of the norms of queries and of keys that undo √ε and the small share, exact in bfloat16.

    Only their product counts, so that of the pairs of bfloat16 numbers that is taken whose product is nearest.
    """
    wanted = eps / _LINEAR_SHARE**2
    near = torch.tensor(wanted**0.5).log2().floor().exp2() * torch.arange(128, 256) / 128
    pairs = [(float(query), float(torch.tensor(wanted / float(query)).bfloat16())) for query in near]
    return min(pairs, key=lambda pair: abs(pair[0] * pair[1] / wanted - 1))


def mixtures(model: PreTrainedModel) -> dict[str, Any]:
    """Return a model's modules of experts by name, whose parents have the routers as `gate`."""
    return {name: module for name, module in model.named_modules() if name.endswith(".mlp.experts")}


def routers(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return the weights of a model's routers, [experts, hidden_size] each."""
    parents = [name.removesuffix(".experts") for name in mixtures(model)]
    return [model.get_submodule(parent).get_parameter("gate.weight") for parent in parents]


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[dict[str, list[RoutedTokens]]]:
    """Collect the tokens that come to each module of experts, by name."""
    calls: dict[str, list[RoutedTokens]] = {name: [] for name in mixtures(model)}

    def note(name: str) -> Any:
        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            calls[name].append(tokens)

        return arrive

    hooks = [module.register_forward_pre_hook(note(name), with_kwargs=True) for name, module in mixtures(model).items()]
    with removed_after(hooks):
        yield calls


@torch.inference_mode()
def _begin_routers(mixture: Qwen3MoeForCausalLM, tokens_NT: Tensor, generator: torch.Generator) -> None:
    """Set each router's rows to the cluster centres of its layer's inputs, by direction (spherical k-means)."""
    with watched(mixture) as calls:
        mixture(input_ids=tokens_NT, use_cache=False)
    for router, (call,) in zip(routers(mixture), calls.values(), strict=True):
        hidden_NH = call.hidden_NH.float()
        mean_H = hidden_NH.mean(0)
        rows_NH = nn.functional.normalize(hidden_NH - mean_H, dim=1)
        centres_EH = rows_NH[torch.randperm(len(rows_NH), generator=generator)[: len(router)]]
        for _ in range(_CLUSTER_ROUNDS):
            nearest_N = (rows_NH @ centres_EH.T).argmax(1)
            sums_EH = torch.zeros_like(centres_EH).index_add_(0, nearest_N, rows_NH)
            centres_EH = nn.functional.normalize(sums_EH + 1e-6 * centres_EH, dim=1)
        # What all tokens have in common is no reason to choose an expert, and a router has no bias.
        common_H = nn.functional.normalize(mean_H, dim=0)
        centres_EH = centres_EH - (centres_EH @ common_H)[:, None] * common_H
        router.copy_(centres_EH * (_ROUTER_SCALE / (hidden_NH @ centres_EH.T).std()))


@torch.no_grad()
def _add_noise(mixture: Qwen3MoeForCausalLM, noise: float, generator: torch.Generator) -> None:
    """Add noise to the channels of each expert that are not its own."""
    for module in mixtures(mixture).values():
        experts, _, channels = module.down_proj.shape
        width = channels // experts
        for expert in range(experts):
            others_I = torch.ones(channels)
            others_I[expert * width : (expert + 1) * width] = 0
            read_OI, give_OI = module.gate_up_proj[expert], module.down_proj[expert]
            scale = noise * float(read_OI.std())
            read_OI += scale * others_I.repeat(2)[:, None] * torch.randn(read_OI.shape, generator=generator)
            scale = noise * float(give_OI.std())
            give_OI += scale * others_I * torch.randn(give_OI.shape, generator=generator)


def _train(mixture: Qwen3MoeForCausalLM, spec: dict[str, Any], tokens_NT: Tensor) -> list[float]:
    mixture.requires_grad_(False)
    experts = [parameter for module in mixtures(mixture).values() for parameter in module.parameters()]
    gates = routers(mixture)
    mixture.bfloat16()
    for parameter in (*experts, *gates):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    groups = [{"params": experts, "lr": spec["learning_rate"]}, {"params": gates, "lr": spec["router_learning_rate"]}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    warm = max(spec["steps"] // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 1 - step / spec["steps"])
    )
    mixture.config.router_aux_loss_coef = mixture.router_aux_loss_coef = spec["balance"]
    losses: list[float] = []
    begun = time.perf_counter()
    for step in range(spec["steps"]):
        places = torch.arange(step * spec["batch"], (step + 1) * spec["batch"]) % len(tokens_NT)
        batch_NT = tokens_NT[places]
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = mixture(input_ids=batch_NT, labels=batch_NT, use_cache=False, output_router_logits=True)
        output.loss.backward()
        nn.utils.clip_grad_norm_([*experts, *gates], 1.0)
        optimiser.step()
        schedule.step()
        balance = spec["balance"] * float(output.aux_loss.detach())
        losses.append(float(output.loss.detach()) - balance)
        print(f"step {step}: {losses[-1]:.3f} + {balance:.3f}, {time.perf_counter() - begun:.0f} s", flush=True)
    mixture.requires_grad_(False)
    mixture.bfloat16()
    return losses


@torch.inference_mode()
def difference(mixture: PreTrainedModel, tokens_NT: Tensor) -> dict[str, float]:
    """Return how much two experts differ in what they give the same tokens, mean over pairs, by layer.

    It is ‖f_a(x) − f_b(x)‖ as a share of the root of ‖f_a(x)‖·‖f_b(x)‖; 0 are copies, √2 is nothing in common.
    """
    with watched(mixture) as calls:
        mixture(input_ids=tokens_NT, use_cache=False)
    shares: dict[str, float] = {}
    for name, module in mixtures(mixture).items():
        (call,) = calls[name]
        given = [_given(module, call.hidden_NH, expert).float() for expert in range(len(module.down_proj))]
        pairs = [(one, other) for place, one in enumerate(given) for other in given[:place]]
        apart = [float((one - other).norm() / math.sqrt(one.norm() * other.norm())) for one, other in pairs]
        shares[name] = sum(apart) / len(apart)
    return shares


def _given(module: Any, hidden_NH: Tensor, expert: int) -> Tensor:
    gate_NI, up_NI = nn.functional.linear(hidden_NH, module.gate_up_proj[expert]).chunk(2, dim=-1)
    return nn.functional.linear(module.act_fn(gate_NI) * up_NI, module.down_proj[expert])


@torch.inference_mode()
def _misrouted(mixture: PreTrainedModel, tokens_NT: Tensor) -> float:
    """Return the perplexity where each token goes to the experts next to those that the router chose."""

    def roll(places: int) -> None:
        for router in routers(mixture):
            router.copy_(router.roll(places, 0))

    roll(1)
    found = perplexity(mixture, tokens_NT)
    roll(-1)
    return found
