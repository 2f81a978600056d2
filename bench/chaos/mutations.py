"""The proof that the checker can fail: `python -m bench.chaos.mutations [NAME …]`.

Each mutation of `mutations.toml` is applied to a copy of the tree, where its scenario runs and the checker must find
the promise broken; on a copy without it, the same scenario must leave nothing to find. The exit status is 0 where all
of that is so.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.mutants.mutant import Mutant, NotApplicable, by_hand
from bench.mutants.running import applied, copy_tree, sources

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutations.toml")
_SECONDS = 600


@dataclass(frozen=True)
class Mutation:
    """A change of the service, the scenario that shows it, and the promise that the checker must find broken."""

    name: str
    promise: str
    scenario: str
    changes: tuple[Mutant, ...]


def read_mutations() -> list[Mutation]:
    """Return the list."""
    return [_mutation(table) for table in tomllib.loads(LIST.read_text("utf-8"))["mutation"]]


def _mutation(table: dict[str, Any]) -> Mutation:
    changes = tuple(by_hand(table["name"], **change) for change in table["change"])
    return Mutation(table["name"], table["promise"], table["scenario"], changes)


class ScenarioFailed(Exception):
    """A scenario that did not come to the checker proves nothing."""


def found(copy: Path, mutation: Mutation) -> list[dict[str, Any]]:
    """Return the violations the checker finds in this tree after the scenario. Raises ScenarioFailed."""
    own = {
        "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'client/src'}",
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing compiled of a mutation may outlive it
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.chaos.scenarios", mutation.scenario],
        cwd=copy,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise ScenarioFailed(f"{mutation.scenario} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"promise"')]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutations; all where none is given")
    names = parser.parse_args(arguments).names
    mutations = [each for each in read_mutations() if not names or each.name in names]
    if not mutations:
        parser.error(f"no mutation is named {', '.join(names)}")
    results = [_tried(each) for each in mutations]
    return int(not all(results))


def _tried(mutation: Mutation) -> bool:
    """Try one on a copy of its own, with the change and without; tell how it went."""
    with TemporaryDirectory(prefix="secateur-mutation-") as place:
        copy = copy_tree(ROOT, sources(ROOT), Path(place) / "tree")
        try:
            without = found(copy, mutation)
            with ExitStack() as stack:
                for change in mutation.changes:
                    stack.enter_context(applied(change, copy))
                violations = found(copy, mutation)
        except (NotApplicable, ScenarioFailed) as error:
            _say(f"error     {mutation.name}: {error}")
            return False
    caught = [each for each in violations if each["promise"] == mutation.promise]
    for each in without:
        _say(f"unchanged {mutation.name}: {each['promise']}: {each['text']}")
    if not caught:
        _say(f"survived  {mutation.name}: the checker found {sorted({each['promise'] for each in violations})}")
    else:
        _say(f"caught    {mutation.name}: {caught[0]['text']} ({len(violations)} violations)")
    return bool(caught) and not without


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
