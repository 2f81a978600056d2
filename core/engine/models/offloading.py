"""Opening of a folder by stock `from_pretrained` with the matrices of its blocks left on disk.

accelerate reads each matrix from the folder's own files when a module runs, and frees it afterwards. Tensors that
transformers builds from several stored ones, such as stacks of experts, are first written into a folder, and read from
there.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, modeling_utils
from transformers.pytorch_utils import Conv1D

from core.engine.architectures.architecture import Architecture
from core.engine.models.loading import Implementations

_DISK = "disk"
_ONE_AT_A_TIME = Lock()
"""Of the contexts that replace a function of the library for the whole process."""


class Offloading(TypedDict):
    """Keywords of `from_pretrained`."""

    device_map: dict[str, str]
    offload_folder: str


@contextmanager
def offloading(
    artifact: Path,
    family: Architecture,
    folder: Path,
    *,
    device: torch.device,
    trust_remote_code: bool,
    implementations: Implementations,
) -> Iterator[Offloading]:
    """Yield the keywords with which `from_pretrained` leaves the matrices of an artifact's blocks on disk.

    `folder` is for files that have to be written. Inside the context, files are read tensor by tensor: with a mapped
    file, every page that was read stays in memory. transformers has no setting for that, though it does so on Windows.
    """
    config = AutoConfig.from_pretrained(artifact, local_files_only=True)
    with torch.device("meta"):
        skeleton: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, **implementations)
    library: Any = modeling_utils
    with _ONE_AT_A_TIME:
        opened = library.safe_open
        library.safe_open = partial(_open_without_a_map, opened)
        try:
            with warnings.catch_warnings():
                # accelerate warns about parameters outside modules, although a map may name them.
                warnings.filterwarnings("ignore", "The following device_map keys do not match any submodules")
                yield {"device_map": places(skeleton, family, device), "offload_folder": os.fspath(folder)}
        finally:
            library.safe_open = opened


def _open_without_a_map(opened: Any, file: str, **keywords: Any) -> Any:
    return opened(file, **{**keywords, "backend": "pread"})


def places(skeleton: nn.Module, family: Architecture, device: torch.device) -> dict[str, str]:
    """Return the place of each part of a model: the device, or the disk.

    Linear layers and experts of the blocks are on disk, and so are modules outside the language model. Smaller parts of
    blocks stay on the device: some models use their weights without running the module.
    """
    blocks = skeleton.get_submodule(family.blocks)
    stored = set(family.other_modules)
    for name, module in blocks.named_modules(prefix=family.blocks):
        within = name.removeprefix(f"{family.blocks}.").partition(".")[2]
        is_experts = family.experts is not None and within == family.experts.module
        if is_experts or isinstance(module, nn.Linear | Conv1D):
            stored.add(name)
    passed = {name[:end] for name in stored for end, letter in enumerate(name) if letter == "."}
    return dict(_parts(skeleton, "", stored, passed, str(device)))


def _parts(
    module: nn.Module, prefix: str, stored: set[str], passed: set[str], device: str
) -> Iterator[tuple[str, str]]:
    """Yield the largest parts of a module that have one place; `passed` are modules with some parts on disk."""
    tensors: Mapping[str, Tensor] = dict(
        [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    )
    for name in tensors:
        yield f"{prefix}{name}", device
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        if full in passed and full not in stored:
            yield from _parts(child, f"{full}.", stored, passed, device)
        else:
            yield full, _DISK if full in stored else device
