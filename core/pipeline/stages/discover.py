"""Entry point of the child process that discovers an architecture and tests it on a small copy of the model."""

from collections.abc import Mapping

from pydantic import JsonValue

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.discovery.__main__ import main


def discover_and_test(config: Mapping[str, JsonValue], tensors: Mapping[str, TensorEntry]) -> Architecture:
    """Return the architecture of a model; it refuses every feature that fails on a small copy of the model.

    Raises UnsupportedArchitecture or UnusableModel with the reason.
    """
    from core.engine.discovery.discover import discover_with_copy
    from core.engine.discovery.self_test import self_tested
    from core.engine.vocabulary.small_copy import with_vocabulary

    architecture, small, real = discover_with_copy(config, tensors)
    architecture = with_vocabulary(architecture, small)
    return architecture if "experts" in architecture.refused else self_tested(architecture, small, real)


if __name__ == "__main__":
    main(discover_and_test)
