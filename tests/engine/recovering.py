"""Recovery in tests: tiny pruned models; and one recovery among several processes.

`python -m tests.engine.recovering MODEL WORK` is one of them, as a launcher starts it.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.pruning.masks import lowest_in_groups
from core.engine.recovery.language import Recovered, recover
from core.engine.recovery.request import Recovery
from secateur_wire.recovery import Lora
from tests.engine.tiny import make_model, make_tokens

SHARED = Recovery(method="finetune", steps=6, batch_size=4, learning_rate=3e-3, checkpoint_every=100)


def make_pruned(folder: Path, name: str = "llama", **changes: Any) -> Path:
    """A tiny model with 2 of every 4 weights of its linear layers zero."""
    make_model(folder, name, **changes)
    opened = open_model(folder)
    linears = {f"{linear.name}.weight" for linear in opened.description.linears}
    tensors = load_file(folder / "model.safetensors")
    for key, weight in tensors.items():
        if opened.family.module_name(key) in linears:
            turned = weight.T if opened.family.transposed else weight
            pruned = turned.masked_fill(lowest_in_groups(turned.float().abs(), 2, 4), 0)
            tensors[key] = (pruned.T if opened.family.transposed else pruned).contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def linears_of(folder: Path) -> list[str]:
    return [linear.name for linear in open_model(folder).description.linears]


def train(folder: Path, work: Path, recovery: Recovery, windows: Tensor | None = None, **more: Any) -> Recovered:
    """On random tokens where none are given, all zeros of the linear layers kept."""
    work.mkdir(parents=True, exist_ok=True)
    return recover(
        open_model(folder),
        recovery,
        make_tokens(10) if windows is None else windows,
        linears=linears_of(folder),
        work=work,
        device=torch.device("cpu"),
        **more,
    )


def save(recovered: Recovered, source: Path, target: Path) -> Path:
    write_checkpoint(recovered.files, recovered.unchanged, source, target)
    return target


def tiny_lora(**changes: Any) -> Lora:
    return Lora(**{"r": 2, "alpha": 4, "dropout": 0.1, **changes})


def train_among(rank: int, processes: int, port: int, model: Path, work: Path) -> None:
    """Be process `rank` of several, told so as a launcher does it; the first listens on the port."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({name: str(number) for name, number in (place | {"MASTER_PORT": port}).items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    train_shared(model, work)


def train_shared(model: Path, work: Path) -> None:
    """Train, and leave `rank-N.json` with the losses and a hash of the weights process N has after its last step."""
    torch.set_num_threads(1)
    digests: list[str] = []

    def hash_weights(optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
        digest = hashlib.sha256()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                digest.update(parameter.detach().numpy().tobytes())
        digests.append(digest.hexdigest())

    register_optimizer_step_post_hook(hash_weights)
    recovered = train(model, work, SHARED)
    told = {"losses": recovered.losses, "weights": digests[-1], "processes": recovered.processes}
    (work / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    train_shared(Path(sys.argv[1]), Path(sys.argv[2]))
