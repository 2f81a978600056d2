"""Discoveries of architectures that nobody listed."""

from typing import Any, Final

from api.openapi.examples.common import LATER, MOMENT, SHA256

_DISCOVERY: Final = {
    "id": f"discovery_{SHA256}",
    "object": "discovery",
    "state": "found",
    "architecture": "OlmoHybridForCausalLM",
    "transformers_version": "5.24.0",
    "created_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": LATER,
    "error": None,
}
EXAMPLES: Final[dict[str, Any]] = {"Discovery": _DISCOVERY}
PARAMETERS: Final[dict[str, Any]] = {"discovery_id": _DISCOVERY["id"]}
