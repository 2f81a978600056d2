"""Inside of a cell of part costs: a table for one engine, or some shapes timed in turn with the dense one."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from core.engine.latency.costs import DECODED_TOKENS, Workload
from core.engine.latency.measure import measured_costs, timing_of
from core.engine.latency.variants import BlockVariant, ModelShape
from core.engine.models.folder import open_model

_MOST_ROUNDS: Final = 15
_SECONDS: Final = 60.0


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the table of a workload."""
    workload = Workload.model_validate(spec["workload"])
    return measured_costs(open_model(Path(spec["model"])), workload, log=print).model_dump(mode="json")


def time(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of the spec's shapes, `[shape][round]`, each of the prompt and of a decode step."""
    workload = Workload.model_validate(spec["workload"])
    shapes = [
        ModelShape(tuple(BlockVariant(*each) for each in layers), vocabulary) for layers, vocabulary in spec["shapes"]
    ]
    with (
        TemporaryDirectory(dir=spec["place"]) as place,
        timing_of(workload.engine).prepared(open_model(Path(spec["model"])), shapes, workload, Path(place)) as timed,
    ):
        seconds = timed(workload.trial(_MOST_ROUNDS, _SECONDS))
    return {"seconds": [[(prompt, decoded / DECODED_TOKENS) for prompt, decoded in rounds] for rounds in seconds]}
