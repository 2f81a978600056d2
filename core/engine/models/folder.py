"""An opened model folder: config object, family, and the index of its tensors."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import ModelDescription, inspect_folder, read_config, read_tensors
from core.engine.architectures.heterogeneous import AUTO_MAP_KEY
from core.engine.checkpoints.pieces import PiecedEntry
from core.engine.checkpoints.quantisation import QUANTISATION_KEY, QuantisedEntry, plain_config, quantisation_of
from core.engine.checkpoints.safetensors_header import TensorEntry, read_header
from core.engine.checkpoints.special_floats import with_floats
from core.engine.checkpoints.stacked import StackedEntry
from core.engine.models.tensors import read_tensor, write_tensors
from core.panics import is_panic
from secateur_wire.base import JsonObject
from secateur_wire.errors import MissingTensors, UnusableModel

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelFolder:
    """An opened folder; nothing of it has been executed, and no tensor is in memory.

    `config` and `raw_config`, config.json, are those of the dequantised model; others are as they are.
    """

    path: Path
    description: ModelDescription
    family: Architecture
    raw_config: dict[str, Any]
    config: PretrainedConfig
    tensors: dict[str, TensorEntry]

    def read(self, name: str) -> Tensor:
        """Read one tensor by its module's name; raises MissingTensors."""
        return read_tensor(self.entry(name))

    def entry(self, name: str) -> TensorEntry:
        """Return where a tensor lies, by its module's name; raises MissingTensors."""
        if name not in self.tensors:
            raise MissingTensors(f"the files lack {name}", param="model")
        return self.tensors[name]

    def config_of(self, raw: JsonObject) -> PretrainedConfig:
        """Return the config object of another config.json of the same class."""
        return type(self.config).from_dict({name: with_floats(value) for name, value in raw.items()})

    @property
    def is_quantised(self) -> bool:
        """Return whether any of its weights is dequantised when it is read."""
        return any(isinstance(part, QuantisedEntry) for entry in self.tensors.values() for part in _parts(entry))

    def stored_entries(self, names: Iterable[str], dequantised: Path) -> list[TensorEntry]:
        """Return where tensors lie, under the names they are saved by.

        Those that are quantised, or in pieces, are written to the file `dequantised`, which is made where there is any.
        Of a stack these are the tensors of each expert.
        """
        entries: dict[str, TensorEntry] = {}
        for name in sorted(names):
            entry = self.tensors[name]
            parts = entry if isinstance(entry, StackedEntry) else ()
            entries |= {part.name: part for part in parts} or {self.family.stored_name(name): entry}
        written = {
            name: read_tensor(each) for name, each in entries.items() if isinstance(each, QuantisedEntry | PiecedEntry)
        }
        if written:
            write_tensors(dequantised, written)
            entries |= read_header(dequantised)
        return [replace(entry, name=name) for name, entry in entries.items()]

    def saved_buffers(self, module: nn.Module, prefix: str = "") -> list[tuple[str, Tensor]]:
        """Return the buffers of a module that the files have, by name within it; `prefix` leads to that."""
        saved = module.state_dict(keep_vars=True)
        return [
            (name, buffer)
            for name, buffer in module.named_buffers()
            if name in saved and f"{prefix}{name}" in self.tensors
        ]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open the folder's tokenizer; raises UnusableModel where there is none that opens."""
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except BaseException as error:  # the library raises a dozen kinds for a missing or broken tokenizer, or panics
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise UnusableModel(
                f"the tokenizer of {self.path.name} cannot be opened: {error}", param="model"
            ) from error
        tokenizer.chat_template = None  # a program of the folder's, which nobody can come to render
        return tokenizer


def _parts(entry: TensorEntry) -> Iterable[TensorEntry]:
    if isinstance(entry, PiecedEntry):
        return entry.parts
    return entry if isinstance(entry, StackedEntry) else (entry,)


def open_model(path: Path, *, own_artifact: bool = False, discovered: Architecture | None = None) -> ModelFolder:
    """Check and open a folder; raises UnusableModel kinds or UnsupportedArchitecture.

    `own_artifact`: the folder is one this service wrote, and its content is known to be unchanged. `discovered` is the
    architecture that was discovered of it, or of its source.
    """
    description = inspect_folder(path, own_artifact=own_artifact, discovered=discovered)
    family = description.known_as
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # config classes validate with whatever exception their authors chose
        raise UnusableModel(
            f"config.json of {path.name} is refused by its config class: {str(error)[:1000]}", param="model"
        ) from error
    for key in (AUTO_MAP_KEY, QUANTISATION_KEY):  # nothing that is handed the config can come to run what it names
        vars(config).pop(key, None)
    raw = read_config(path, own_artifact=own_artifact, discovered=discovered)
    tensors = read_tensors(path, family, quantisation_of(raw))
    return ModelFolder(path, description, family, plain_config(raw), config, tensors)
