"""One pruning with llm-compressor. Runs in that library's own virtual environment and imports nothing of this project.

    python llmcompressor_driver.py SPEC.json RESULT.json

Every decoder linear is pruned and the head left alone, as Secateur does; what the library leaves to its user (block
size, damping, batch size) is set to Secateur's values, the order of the calibration tokens is theirs, and the result is
saved dense in the checkpoint's own dtype.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from llmcompressor import active_session, oneshot  # type: ignore[import-not-found]
from llmcompressor.core import LifecycleCallbacks  # type: ignore[import-not-found]
from llmcompressor.modifiers.pruning import (  # type: ignore[import-not-found]
    MagnitudePruningModifier,
    SparseGPTModifier,
    WandaPruningModifier,
)
from llmcompressor.modifiers.pruning.utils.pytorch import PruningMaskFactory  # type: ignore[import-not-found]
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

HEAD = "re:.*lm_head"
DECODER_LINEARS = r"re:.*layers\.\d+\..*_proj$"


def modifier(spec: dict[str, Any]) -> Any:
    """The library's modifier for wanda or sparsegpt."""
    structure = "0:0" if spec["pattern"] == "unstructured" else spec["pattern"]
    shared = {"sparsity": spec["sparsity"], "mask_structure": structure, "targets": ["Linear"], "ignore": [HEAD]}
    if spec["method"] == "wanda":
        return WandaPruningModifier(**shared)
    return SparseGPTModifier(**shared, block_size=spec["block_size"], dampening_frac=spec["damping"])


def prune_with_calibration(model: PreTrainedModel, spec: dict[str, Any]) -> None:
    """`oneshot` over the calibration tokens, in their order."""
    tokens_NT = load_file(spec["tokens"])["tokens"]

    def collate(windows: list[Tensor]) -> dict[str, Tensor]:
        return {"input_ids": torch.stack(windows)}

    loader: DataLoader[Tensor] = DataLoader(list(tokens_NT), batch_size=spec["batch_size"], collate_fn=collate)  # type: ignore[arg-type]
    oneshot(model=model, tokenizer=spec["model"], recipe=[modifier(spec)], dataset=loader)


def prune_by_magnitude(model: PreTrainedModel, spec: dict[str, Any]) -> None:
    """The modifier belongs to training: `oneshot` makes its masks and never applies them, an optimiser step does.

    So it is given the event of one such step, without an optimiser.
    """
    recipe = MagnitudePruningModifier(
        targets=[DECODER_LINEARS],
        init_sparsity=spec["sparsity"],
        final_sparsity=spec["sparsity"],
        update_scheduler=f"calc({spec['sparsity']})",
        mask_structure=spec["pattern"],
        start=0,
    )
    session = active_session()
    session.initialize(model=model, recipe=[recipe], start=-1)
    LifecycleCallbacks.batch_start()
    LifecycleCallbacks.optim_pre_step()
    LifecycleCallbacks.optim_post_step()
    session.finalize()


def offered(spec: dict[str, Any]) -> bool:
    """Whether the library has the method with the pattern: its masks by magnitude know no n:m."""
    if spec["method"] == "magnitude":
        try:
            PruningMaskFactory.create_mask_creator(spec["pattern"])
        except ValueError:
            return False
    return True


def main() -> None:
    """Load, prune, save, each timed in seconds; `offered: false` where the library cannot do it."""
    spec_file, result_file = map(Path, sys.argv[1:])
    spec = json.loads(spec_file.read_text())
    torch.set_num_threads(spec["threads"])
    if not offered(spec):
        result_file.write_text(json.dumps({"offered": False}))
        return
    begun = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    loaded = time.perf_counter()
    with torch.no_grad():
        (prune_by_magnitude if spec["method"] == "magnitude" else prune_with_calibration)(model, spec)
    pruned = time.perf_counter()
    if spec["method"] == "magnitude":
        model.save_pretrained(spec["output"])
    else:  # `oneshot` put a wrapper around the method, which would compress
        model.save_pretrained(spec["output"], save_compressed=False)
    tokenizer.save_pretrained(spec["output"])
    result = {
        "load_seconds": loaded - begun,
        "prune_seconds": pruned - loaded,
        "save_seconds": time.perf_counter() - pruned,
        "forward_dtype": str(model.dtype).removeprefix("torch."),
    }
    result_file.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
