"""Entry of the child process: reads a config and headers as JSON, writes the architecture or the error."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue, TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import architectures
from core.engine.checkpoints.safetensors_header import TensorEntry
from secateur_wire.errors import DiscoveryFailed, SecateurError, UnsupportedArchitecture

Discover: TypeAlias = Callable[[Mapping[str, JsonValue], Mapping[str, TensorEntry]], Architecture]
_Headers = Mapping[str, tuple[str, tuple[int, ...]]]
_request: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
_headers: TypeAdapter[_Headers] = TypeAdapter(_Headers)


def _discover(config: Mapping[str, JsonValue], tensors: Mapping[str, TensorEntry]) -> Architecture:
    from core.engine.discovery.discover import discover

    return discover(config, tensors)


def answer(request: str, discover: Discover = _discover) -> dict[str, JsonValue]:
    """Return the answer to a request: an architecture, or the code and message of an error."""
    try:
        content = _request.validate_json(request)
        config = _request.validate_python(content["config"])
        headers = _headers.validate_python(content["tensors"])
        architecture = discover(config, {name: _entry(name, *each) for name, each in headers.items()})
        answered: dict[str, JsonValue] = {"architecture": architectures.dump_python(architecture, mode="json")}
    except SecateurError as error:
        answered = _error(type(error), str(error))
    except MemoryError:
        # The machine may have too little memory, which says nothing about the model.
        answered = _error(DiscoveryFailed, "finding out what the model is takes too much memory")
    except Exception as error:  # the code of any type of model may fail in any way
        why = f"what the model is cannot be found out: {type(error).__name__}: {str(error)[:300]}"
        answered = _error(UnsupportedArchitecture, why)
    return answered


def _error(kind: type[SecateurError], message: str) -> dict[str, JsonValue]:
    return {"error": {"code": kind.code, "message": message}}


def _entry(name: str, dtype: str, shape: Sequence[int]) -> TensorEntry:
    return TensorEntry(name, dtype, tuple(shape), Path(), 0, 0)


def main(discover: Discover = _discover) -> None:
    """Answer the request on standard input; what libraries print goes to standard error."""
    with redirect_stdout(sys.stderr):
        answered = answer(sys.stdin.read(), discover)
    json.dump(answered, sys.stdout)


if __name__ == "__main__":
    main()
