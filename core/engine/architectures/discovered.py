"""Architectures that were discovered: the key they are kept by, and their JSON."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import TensorEntry

DISCOVERY_VERSION = 4
"""Raised where the same model would be found to be something else than before."""

architectures: TypeAdapter[Architecture] = TypeAdapter(Architecture)


def discovery_key(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], transformers_version: str) -> str:
    """Return the SHA-256 of all that a discovery depends on: config, names, dtypes and shapes, and the versions."""
    listed = sorted((name, entry.dtype, list(entry.shape)) for name, entry in tensors.items())
    content = [config, listed, transformers_version, DISCOVERY_VERSION]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
