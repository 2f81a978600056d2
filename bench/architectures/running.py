"""Cells of the matrix: each type is tried in a child of this process, and its outcomes are kept.

Children are forked, so that the libraries are loaded once. A child that crashes, hangs or takes too much memory is the
outcome of its type.
"""

import json
import multiprocessing
import resource
import signal
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from bench.architectures.checks import check_type
from bench.architectures.outcomes import CAPABILITIES, Outcome, TypeOutcomes
from bench.cells import Program, cell_key, engine_program, recall, remember
from tests import families

LIMIT_SECONDS = 300
_MEMORY = 16 * 2**30
_RESULT = "outcomes.json"
_COUNTING = ("jobs", "masked", "outcomes", "rows", "tiny_configs")
"""Modules beside the checks that outcomes follow from."""


def recalled(types: Iterable[str]) -> dict[str, TypeOutcomes]:
    """Return the outcomes that are kept; runs nothing."""
    stored = {model_type: recall(_key(model_type)) for model_type in types}
    return {model_type: TypeOutcomes.of(known) for model_type, known in stored.items() if known is not None}


def complete(types: Iterable[str]) -> Iterator[TypeOutcomes]:
    """Try the types whose outcomes are not kept, and return those of each as it ends."""
    torch.set_num_threads(1)
    for model_type in types:
        if recall(_key(model_type)) is None:
            outcomes = _tried(model_type)
            remember(_key(model_type), asdict(outcomes))
            yield outcomes


def _tried(model_type: str) -> TypeOutcomes:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        child = multiprocessing.get_context("fork").Process(target=_child, args=(model_type, work))
        child.start()
        child.join(LIMIT_SECONDS)
        reason = f"its process ended with code {child.exitcode}"
        if child.is_alive():
            reason = f"it took more than {LIMIT_SECONDS} seconds"
            child.kill()
            child.join()
        if (work / _RESULT).is_file():
            return TypeOutcomes.of(json.loads((work / _RESULT).read_text()))
    failed = Outcome("failed", reason, "process")
    return TypeOutcomes(model_type, False, False, LIMIT_SECONDS, dict.fromkeys(CAPABILITIES, failed))


def _child(model_type: str, work: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    partial = work / f"{_RESULT}.partial"
    partial.write_text(json.dumps(asdict(check_type(model_type, work))))
    partial.replace(work / _RESULT)


def _key(model_type: str) -> str:
    return cell_key(_program(), {"type": model_type}, "")


@cache
def _program() -> Program:
    here = Path(__file__).parent
    counting = [*(here / f"{name}.py" for name in _COUNTING), here / "tiny.toml", Path(families.__file__)]
    return engine_program("bench.architectures.checks", counting)
