"""Error for models that llama.cpp does not compute."""

from core.engine.exporters.exporter_info import PARAM
from secateur_wire.errors import InvalidRequest


def refusal(what: str, would_do: str) -> InvalidRequest:
    """Return the error that a model has an unsupported property; it names the supported alternative."""
    return InvalidRequest(
        f"{PARAM}: this model has {what}, but GGUF files can be written only for models with {would_do}: leave gguf "
        "out, or choose such a model",
        param=PARAM,
    )
