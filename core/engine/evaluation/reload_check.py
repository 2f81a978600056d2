"""Reload check: the saved folder, opened by `from_pretrained` in a fresh process, must give the expected logits.

Only this module executes the modelling file of an artifact, and only if it is the file that this version writes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from core.counting import working
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.declared import architecture_for
from core.engine.architectures.folder import read_config
from core.engine.architectures.heterogeneous import MODELLING_FILE, has_modelling_file, per_layer_architecture
from core.engine.models.accelerator import ran_out_of_memory
from core.engine.models.loading import own_implementations
from core.engine.models.memory_limit import weights_mapped
from core.engine.models.offloading import offloading
from core.engine.models.precision import LOGIT_TOLERANCE, fast_arithmetic
from core.engine.models.tensors import load_tensors
from secateur_wire.errors import ReloadCheckFailed


@torch.inference_mode()
def reload_check(
    artifact: Path,
    expected: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    discovered: Architecture | None = None,
    offload: Path | None = None,
) -> dict[str, Any]:
    """Compare logits and generate with the cache; return the figures, raise ReloadCheckFailed naming the difference.

    `dtype` is that of the forward that gave the expected logits, where the artifact's own is another. The logits are
    then compared in it; the artifact is opened once more in its own, and its logits need only be finite.
    `discovered` is the architecture where none is declared. The whole model is held in memory, unless `offload` is a
    folder for files that let most of it stay on the disk.
    """
    wanted = load_tensors(expected)
    tokens_BT = wanted["tokens"].to(device)
    model, runs_code = _open(artifact, device, dtype, discovered, offload)
    with _refusals(), fast_arithmetic(device):  # tensors on the disk are only checked now; products are the pass's
        logits = model(input_ids=tokens_BT).logits.float().cpu()
    tolerance = LOGIT_TOLERANCE[model.dtype] * largest_logit(wanted["logits"])
    difference = float((logits - wanted["logits"]).abs().max())
    if not difference <= tolerance:
        raise ReloadCheckFailed(
            f"the reloaded model's outputs (logits) differ by {difference:g}; at most {tolerance:g} is allowed"
        )
    own: dict[str, float] = {}
    if dtype is not None:
        del model  # before it is opened again
        elsewhere = None if offload is None else offload / "again"
        model, runs_code = _open(artifact, device, None, discovered, elsewhere)
        narrow_logits = model(input_ids=tokens_BT).logits.float().cpu()
        if not narrow_logits.isfinite().all():
            raise ReloadCheckFailed(
                f"in {str(model.dtype).removeprefix('torch.')} the model's outputs (logits) are infinite or not a "
                "number: its activations are beyond the range of that dtype, so use another output.dtype"
            )
        own = {"difference_in_own_dtype": float((narrow_logits - wanted["logits"]).abs().max())}
    # the source's generation config may choose another decoding, or a compiler
    model.generation_config = GenerationConfig()
    generated = model.generate(tokens_BT[:, :4], max_new_tokens=2, min_new_tokens=2, do_sample=False)
    if generated.shape[1] != min(4, tokens_BT.shape[1]) + 2:
        raise ReloadCheckFailed("the reloaded model does not generate text with its cache")
    return {
        "maximum_difference": difference,
        "tolerance": tolerance,
        **own,
        "dtype": str(model.dtype).removeprefix("torch."),
        "trust_remote_code": runs_code,
        **({} if offload is None else {"offloaded": True}),
    }


def _open(
    artifact: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    discovered: Architecture | None,
    offload: Path | None,
) -> tuple[Any, bool]:
    """Open an artifact as users do, in a dtype or else in its own; return it, and whether its modelling file ran.

    Raises ReloadCheckFailed where `from_pretrained` does not accept it as it is.
    """
    config = read_config(artifact, own_artifact=True, discovered=discovered)
    family = per_layer_architecture(config, discovered)
    if family is not None and not has_modelling_file(artifact, family):
        raise ReloadCheckFailed(f"{MODELLING_FILE} is not the file that was written for {family.title}")
    known = family or architecture_for(config["architectures"], discovered)
    implementations = own_implementations(getattr(transformers, known.architecture), known.config_path)
    runs_code = family is not None
    keywords: AbstractContextManager[Any] = nullcontext({})
    if offload is not None:
        keywords = offloading(
            artifact, known, offload, device=device, trust_remote_code=runs_code, implementations=implementations
        )
    with working("opening the artifact anew"), _refusals(), weights_mapped(artifact), keywords as places:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            artifact,
            local_files_only=True,
            trust_remote_code=runs_code,
            output_loading_info=True,
            **({} if dtype is None else {"dtype": dtype}),
            **implementations,
            **places,
        )
    model: Any = opened[0]
    loading: dict[str, Any] = opened[1]
    mismatches = {name: sorted(map(str, keys)) for name, keys in loading.items() if keys}
    if mismatches:
        raise ReloadCheckFailed(f"from_pretrained does not accept the artifact as it is: {str(mismatches)[:500]}")
    return model.eval() if offload is not None else model.eval().to(device), runs_code


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise ReloadCheckFailed where the libraries report a tensor that does not belong to the model."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if ran_out_of_memory(error):
            raise
        raise ReloadCheckFailed(
            f"the artifact cannot be opened as it is: {' '.join(str(error).split())[:500]}"
        ) from error


def difference_beyond(logits: Tensor, expected: Tensor, tolerance: float) -> float | None:
    """Return the largest difference of logits if it exceeds `tolerance` times the largest expected one, else None.

    Raises ReloadCheckFailed as `largest_logit` does.
    """
    difference = float((logits - expected).abs().max())
    return None if difference <= tolerance * largest_logit(expected) else difference


def largest_logit(logits: Tensor) -> float:
    """Return the largest magnitude among the expected logits, at least 1.

    Raises ReloadCheckFailed where one is not finite: any difference would be within a tolerance relative to infinity.
    """
    if not logits.isfinite().all():
        raise ReloadCheckFailed(
            "the measured model's outputs (logits) are infinite or not a number, so they cannot be compared"
        )
    return float(logits.abs().max().clamp(min=1))
