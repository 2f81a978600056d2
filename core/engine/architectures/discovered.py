"""Discovered architectures: their key in the store, and their JSON."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import TensorEntry

DISCOVERY_VERSION = 5
"""Version of the discovery. It rises when the same model would get another architecture than before."""

architectures: TypeAdapter[Architecture] = TypeAdapter(Architecture)


def discovery_key(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], transformers_version: str) -> str:
    """Return the SHA-256 of a discovery's inputs: config, names, dtypes and shapes of tensors, and the versions."""
    listed = sorted((name, entry.dtype, list(entry.shape)) for name, entry in tensors.items())
    content = [config, listed, transformers_version, DISCOVERY_VERSION]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
