"""An opened model folder: config object, family, and the index of its tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import ModelDescription, inspect_folder, read_config, read_tensors
from core.engine.architectures.heterogeneous import AUTO_MAP_KEY
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.models.tensors import read_tensor
from core.errors import MissingTensors, UnusableModel

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelFolder:
    """An opened folder; nothing of it has been executed, and no tensor is in memory.

    `raw_config` is config.json as it is.
    """

    path: Path
    description: ModelDescription
    family: Architecture
    raw_config: dict[str, Any]
    config: PretrainedConfig
    tensors: dict[str, TensorEntry]

    def read(self, name: str) -> Tensor:
        """Read one tensor by its module's name; raises MissingTensors."""
        if name not in self.tensors:
            raise MissingTensors(f"the files lack {name}", param="model")
        return read_tensor(self.tensors[name])

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open the folder's tokenizer; raises UnusableModel where there is none that opens."""
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # the library raises a dozen kinds for a missing or broken tokenizer
            raise UnusableModel(
                f"the tokenizer of {self.path.name} cannot be opened: {error}", param="model"
            ) from error
        tokenizer.chat_template = None  # a program of the folder's, which nobody can come to render
        return tokenizer


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
            f"config.json of {path.name} is refused by its config class: {error}", param="model"
        ) from error
    vars(config).pop(AUTO_MAP_KEY, None)  # nothing that is handed the config can come to run what it names
    raw = read_config(path, own_artifact=own_artifact, discovered=discovered)
    return ModelFolder(path, description, family, raw, config, read_tensors(path, family))
