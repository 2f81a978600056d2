"""Opened model folder: config object, family, and the index of its tensors."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.folder import read_config, read_tensors
from core.engine.architectures.heterogeneous import AUTO_MAP_KEY
from core.engine.checkpoints.cast import CastEntry
from core.engine.checkpoints.pieces import PiecedEntry
from core.engine.checkpoints.quantisation import QUANTISATION_KEY, QuantisedEntry, plain_config, quantisation_of
from core.engine.checkpoints.safetensors_header import TensorEntry, read_header
from core.engine.checkpoints.special_floats import with_floats
from core.engine.checkpoints.stacked import StackedEntry
from core.engine.models.tensors import TensorInPlace, mapped_tensor, read_tensor, write_tensors
from core.panics import is_panic
from secateur_wire.base import JsonObject
from secateur_wire.errors import MissingTensors, UnusableModel

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelFolder:
    """Opened folder. None of its code was executed, and none of its tensors is in memory.

    `config` and `raw_config`, config.json, are those of the dequantised model; for other models they are unchanged.
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

    def read_in_place(self, name: str) -> TensorInPlace:
        """Read one tensor and return it as its file holds it, where the file does; raises MissingTensors.

        Memory then has only the parts that are used: of embeddings, the rows of tokens.
        """
        tensor = self.read(name)
        mapped = mapped_tensor(self.entry(name))
        return TensorInPlace(tensor) if mapped is None else mapped

    def entry(self, name: str) -> TensorEntry:
        """Return a tensor's position in the files, by its module's name; raises MissingTensors."""
        if name not in self.tensors:
            raise MissingTensors(f"the files lack {name}", param="model")
        return self.tensors[name]

    def config_of(self, raw: JsonObject) -> PretrainedConfig:
        """Return the config object of another config.json of the same class."""
        return type(self.config).from_dict({name: with_floats(value) for name, value in raw.items()})

    @property
    def is_quantised(self) -> bool:
        """Return True if any of its weights is dequantised on reading."""
        return any(isinstance(part, QuantisedEntry) for entry in self.tensors.values() for part in _parts(entry))

    def stored_entries(self, names: Iterable[str], dequantised: Path) -> list[TensorEntry]:
        """Return the positions of tensors in the files, under the names by which they are saved.

        Quantised tensors, tensors in pieces, and tensors that are saved in another dtype are written to the file
        `dequantised`, which exists only if there are any. A stack gives the tensors of each expert.
        """
        entries: dict[str, TensorEntry] = {}
        for name in sorted(names):
            entry = self.tensors[name]
            parts = entry if isinstance(entry, StackedEntry) else ()
            entries |= {part.name: part for part in parts} or {self.family.stored_name(name): entry}
        written = {
            name: read_tensor(each)
            for name, each in entries.items()
            if isinstance(each, QuantisedEntry | PiecedEntry | CastEntry)
        }
        if written:
            write_tensors(dequantised, written)
            entries |= read_header(dequantised)
        return [replace(entry, name=name) for name, entry in entries.items()]

    def saved_buffers(self, module: nn.Module, prefix: str = "") -> list[tuple[str, Tensor]]:
        """Return a module's buffers that the files store, by name within it; `prefix` is the module's name."""
        saved = module.state_dict(keep_vars=True)
        return [
            (name, buffer)
            for name, buffer in module.named_buffers()
            if name in saved and f"{prefix}{name}" in self.tensors
        ]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open the folder's tokenizer; raises UnusableModel where it has no usable one."""
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except BaseException as error:  # the library raises many types for a missing or broken tokenizer, or panics
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise UnusableModel(
                f"the tokenizer of {self.path.name} cannot be opened: {error}", param="model"
            ) from error
        tokenizer.chat_template = None  # a program of the folder, which only the secluded child renders
        return tokenizer


def _parts(entry: TensorEntry) -> Iterable[TensorEntry]:
    if isinstance(entry, PiecedEntry):
        return entry.parts
    return entry if isinstance(entry, StackedEntry) else (entry,)


def open_model(path: Path, *, own_artifact: bool = False, discovered: Architecture | None = None) -> ModelFolder:
    """Check and open a folder; raises UnusableModel kinds or UnsupportedArchitecture.

    `own_artifact`: this service wrote the folder, and its content is known to be unchanged. `discovered` is the
    architecture that was discovered from the folder, or from its source.
    """
    description = inspect_folder(path, own_artifact=own_artifact, discovered=discovered)
    family = description.known_as
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # config classes validate with exceptions of any type
        raise UnusableModel(
            f"config.json of {path.name} is refused by its config class: {str(error)[:1000]}", param="model"
        ) from error
    for key in (AUTO_MAP_KEY, QUANTISATION_KEY):  # code that gets the config cannot load the code it names
        vars(config).pop(key, None)
    raw = read_config(path, own_artifact=own_artifact, discovered=discovered)
    tensors = read_tensors(path, family, quantisation_of(raw))
    return ModelFolder(path, description, family, plain_config(raw), config, tensors)
