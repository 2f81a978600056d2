"""Registry of engines whose times are measured: every folder of `engines`. Nothing lists them or loads torch."""

from core.discovery import descriptions
from core.engine.latency import engines
from core.engine.latency.engine_info import EngineInfo
from secateur_wire.errors import InvalidRequest

ENGINES = descriptions(engines, EngineInfo)


def engine_info(engine: str) -> EngineInfo:
    """Return the description of an engine by its id; raises InvalidRequest that names those there are."""
    if engine not in ENGINES:
        raise InvalidRequest(f"engine: {engine!r} is not known: use {', '.join(ENGINES)}", param="engine")
    return ENGINES[engine]
