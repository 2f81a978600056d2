"""The inside of the cells of `bench.study capacity`: a random model, its pruning on a device, and the speed of 2:4."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.sparse import to_sparse_semi_structured
from transformers import LlamaConfig

from bench.prune_cell import prune_into
from core.engine.checkpoints.files import INDEX_FILE
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors, write_tensors
from core.engine.options.patterns import STRUCTURED
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.zeros_pass import LayerwisePass
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request

ROUNDS = 20
WARM_UP = 5


def write_model(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `output`: config, one safetensors shard for each block, and tokens.safetensors beside them."""
    width, layers = spec["width"], spec["layers"]
    inner, head_size, vocabulary = spec["intermediate"], spec["head_size"], spec["vocabulary"]
    key_width, dtype = head_size * spec["key_value_heads"], getattr(torch, spec["dtype"])
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
        num_attention_heads=width // head_size,
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


class TimedPass(LayerwisePass):
    """The pass that counts the seconds in which it prunes, and not forwards: statistics are factorised in these too."""

    solve_seconds = 0.0

    def _prune(self, modules: list[str], stored: list[Tensor], statistic: InputStatistic) -> list[Tensor]:
        backend = backend_of(self.plan.device)
        backend.synchronise()
        begun = time.perf_counter()
        pruned = super()._prune(modules, stored, statistic)
        backend.synchronise()
        self.solve_seconds += time.perf_counter() - begun
        return pruned


def prune(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` and write it to `output`; seconds of each part, and the device's peak bytes."""
    device = torch.device(spec["device"])
    folder = open_model(Path(spec["model"]))
    request = resolve_request(
        folder.description, UnresolvedRequest(spec["method"], spec["pattern"], spec["sparsity"], {})
    )
    tokens = load_tensors(folder.path / "tokens.safetensors")["tokens"]
    layerwise = None if request.pattern == STRUCTURED.text else TimedPass
    pruned = prune_into(Path(spec["output"]), folder, request, tokens, device=device, layerwise=layerwise)
    solving = pruned.walk.solve_seconds if isinstance(pruned.walk, TimedPass) else None
    return {
        "prune_seconds": pruned.seconds,
        "forward_seconds": None if solving is None else pruned.seconds - solving,
        "solve_seconds": solving,
        "device_peak_bytes": backend_of(device).peak_bytes(),
        "forward_dtype": str(pruned.walk.plan.forward_dtype).removeprefix("torch."),
        "solve_precision": torch.get_float32_matmul_precision(),
    }


def semi_structured(spec: dict[str, Any]) -> dict[str, Any]:
    """Time a linear layer of these sizes in bfloat16, dense and with 2:4 zeros in torch's semi-structured form.

    Where torch has no kernel for it on the device, the reason is returned in place of seconds.
    """
    device = torch.device(spec["device"])
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(spec["intermediate"], spec["width"], generator=generator, dtype=torch.float32)
    kept_GM = weight_OI.reshape(-1, 4).abs().topk(2, dim=1).indices
    zeros_GM = torch.zeros(weight_OI.numel() // 4, 4).scatter_(1, kept_GM, 1.0)
    sparse_OI = (weight_OI * zeros_GM.reshape(weight_OI.shape)).to(device, torch.bfloat16)
    x_TI = torch.randn(spec["tokens"], spec["width"], generator=generator).to(device, torch.bfloat16)
    dense = _median_seconds(lambda: torch.nn.functional.linear(x_TI, sparse_OI), device)
    try:
        packed_OI = to_sparse_semi_structured(sparse_OI)
        sparse = _median_seconds(lambda: torch.nn.functional.linear(x_TI, packed_OI), device)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return {"dense_microseconds": 1e6 * dense, "reason": str(error).partition("\n")[0][:200]}
    return {"dense_microseconds": 1e6 * dense, "sparse_microseconds": 1e6 * sparse}


def _median_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """Return the median of some rounds, after a few that warm the device up."""
    backend, seconds = backend_of(device), []
    with torch.inference_mode():
        for _ in range(WARM_UP + ROUNDS):
            backend.synchronise()
            begun = time.perf_counter()
            work()
            backend.synchronise()
            seconds.append(time.perf_counter() - begun)
    return median(seconds[WARM_UP:])
