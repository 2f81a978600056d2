"""Timings of engines: the class of an engine's module `timing`."""

from core.discovery import require_class
from core.engine.latency import engines
from core.engine.latency.timing import EngineTiming


def timing_of(engine: str) -> EngineTiming:
    """Return the timing of an engine by its id."""
    return require_class(engines, engine, "timing", EngineTiming)()
