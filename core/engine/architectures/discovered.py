"""Discovered architectures: their key in the store, and their JSON."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from core.engine.architectures.architecture import Architecture

DISCOVERY_VERSION = 5
"""Version of the discovery. It rises when the same model would get another architecture than before."""

architectures: TypeAdapter[Architecture] = TypeAdapter(Architecture)


def content_digest(config: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Return the SHA-256 of a model's config, and of the names, dtypes and shapes of its tensors."""
    return _digest([config, sorted((name, dtype, list(shape)) for name, (dtype, shape) in tensors.items())])


def discovery_key(digest: str, transformers_version: str) -> str:
    """Return the SHA-256 of a discovery's inputs: the `content_digest` of a model, and the versions."""
    return _digest([digest, transformers_version, DISCOVERY_VERSION])


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
