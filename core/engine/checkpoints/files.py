"""Allow-list of the files of a model folder, for downloads, uploads and copies."""

import re
from fnmatch import fnmatchcase

from secateur_wire.provenance import PROVENANCE

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
"""Name of the ONNX file in a classifier's artifact, next to its safetensors. It is never read back as a model."""

COMPANIONS = (
    CONFIG_FILE,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    TOKENIZER_FILE,
    "tokenizer.model",
    TOKENIZER_CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    TEMPLATE_FILE,
    "chat_template.json",
)
"""Files that accompany the weights: config, generation config, tokenizer, and preprocessing of images and sound. All
are data, not code; `core.engine.checkpoints.companions` checks that."""

_CHECKED_BYTES = {
    CONFIG_FILE: 4 * 2**20,
    "generation_config.json": 2**20,
    "preprocessor_config.json": 2**20,
    "processor_config.json": 2**20,
    "video_preprocessor_config.json": 2**20,
    TOKENIZER_CONFIG_FILE: 16 * 2**20,
    SPECIAL_TOKENS_FILE: 4 * 2**20,
    TEMPLATE_FILE: 2**20,
    "chat_template.json": 2**20,
}
_STATEMENT_BYTES = 4 * 2**20
CHECKED = tuple(_CHECKED_BYTES)
"""Companions that are read and checked before anything opens the folder; the other companions are vocabularies."""
MOST_BYTES = dict.fromkeys((*COMPANIONS, INDEX_FILE), 128 * 2**20) | _CHECKED_BYTES | {PROVENANCE: _STATEMENT_BYTES}
"""Largest size in bytes of every file without weights: several times the largest known one."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.safetensors")


def is_weight_file(name: str) -> bool:
    """Return True for the file name of a model's safetensors file, without folders."""
    return _WEIGHTS.fullmatch(name) is not None


def is_model_file(name: str) -> bool:
    """Return True if a file of this name belongs in a model folder."""
    return name in (*COMPANIONS, INDEX_FILE, PROVENANCE) or is_weight_file(name)


def is_pickle(name: str) -> bool:
    """Return True for the file name of weights stored as pickles."""
    return any(fnmatchcase(name, pattern) for pattern in PICKLES)
