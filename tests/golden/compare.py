"""Compare two revisions: `python -m tests.golden.compare BASE HEAD [--only NAME …] [--tolerance 0.01]`.

Without a tolerance every file of every artifact must have the same bytes, and reports, metrics, recorded bodies and the
OpenAPI document must be equal but for times; each job is also killed in the middle and must come to the same files as
without. With `--tolerance` figures may differ by that share and files are not compared: for a change that moves bits.
Exit status 1 where anything differs.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.golden.bodies import BODIES
from tests.golden.inputs import write_inputs
from tests.golden.revision import ROOT, install, serving

FOLDER = ROOT / ".cache" / "golden"
KILLED = " (killed in the middle)"
_OF_THE_KILL = ("attempts", "resumed")
"""When the kill came decides these."""


def results_of(revision: str, bodies: dict[str, Any]) -> dict[str, Any]:
    """Return what each job came to at a revision, run to its end and, `KILLED`, killed while it pruned.

    A result is kept beside the revision, so that what was ended goes on where it was.
    """
    inputs = write_inputs(FOLDER / "inputs")
    site = install(revision, FOLDER)
    results: dict[str, Any] = {}
    with serving(site, inputs) as service:
        results["OpenAPI"] = {"document": service.openapi()}
        service.register(inputs, {body["model"] for body in bodies.values()})
        for name, body in bodies.items():
            for end, killed_in in (("", None), (KILLED, "prune")):
                kept = site / "results" / f"{_digest(body)}{'-killed' if killed_in else ''}.json"
                if not kept.exists():
                    print(f"{revision}: {name}{end}", file=sys.stderr, flush=True)
                    result = service.run(body, killed_in=killed_in)
                    kept.parent.mkdir(exist_ok=True)
                    kept.write_text(json.dumps(result), encoding="utf-8")
                results[name + end] = json.loads(kept.read_text(encoding="utf-8"))
    return results


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:20]


def differences(base: Any, head: Any, tolerance: float | None, path: str = "") -> Iterator[str]:
    """Yield each place where two results differ; with a tolerance, numbers by more than that share of the larger."""
    if isinstance(base, dict) and isinstance(head, dict):
        for key in sorted(base.keys() | head.keys()):
            if key in _OF_THE_KILL or (key == "files" and tolerance is not None):
                continue
            if (key in base) != (key in head):
                yield f"{path}/{key}: only in {'base' if key in base else 'head'}"
            else:
                yield from differences(base[key], head[key], tolerance, f"{path}/{key}")
    elif isinstance(base, list) and isinstance(head, list) and len(base) == len(head):
        for number, (one, other) in enumerate(zip(base, head, strict=True)):
            yield from differences(one, other, tolerance, f"{path}/{number}")
    elif _without_ids(base) != _without_ids(head) and not _near(base, head, tolerance):
        yield f"{path}: {_short(base)} → {_short(head)}"


def _without_ids(value: Any) -> Any:
    """Return a text without the ids of jobs that it names; other values as they are."""
    return re.sub(r"\bjob_[0-9a-z]{26}\b", "job", value) if isinstance(value, str) else value


def _near(base: Any, head: Any, tolerance: float | None) -> bool:
    numbers = isinstance(base, int | float) and isinstance(head, int | float)
    return tolerance is not None and numbers and math.isclose(base, head, rel_tol=tolerance)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.compare", description=__doc__)
    parser.add_argument("base")
    parser.add_argument("head")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these jobs")
    parser.add_argument("--tolerance", type=float, help="share by which figures may differ")
    parser.add_argument("--write", type=Path, metavar="FILE", help="what both came to, as JSON")
    options = parser.parse_args(arguments)
    bodies = json.loads(BODIES.read_text(encoding="utf-8"))
    chosen = {name: body for name, body in bodies.items() if not options.only or name in options.only}
    if missing := set(options.only or ()) - bodies.keys():
        parser.error(f"no job is called {', '.join(sorted(missing))}; there are: {', '.join(bodies)}")
    base, head = results_of(options.base, chosen), results_of(options.head, chosen)
    if options.write:
        options.write.write_text(json.dumps({"base": base, "head": head}, indent=1))
    failed = 0
    print("| job | status | attempts | resumed at | files | against base | against not killed |")
    print("|:--|:--|--:|:--|--:|:--|:--|")
    for name, result in head.items():
        found = list(differences(base[name], result, options.tolerance))
        whole = head[name.removesuffix(KILLED)]
        own = list(differences(whole["files"], result["files"], None)) if name.endswith(KILLED) else []
        failed += bool(found or own)
        row = [
            name,
            result.get("status", ""),
            result.get("attempts", ""),
            result.get("resumed") or "",
            len(result.get("files", ())),
        ]
        row += ["; ".join(found[:3]) or "same", "; ".join(own[:3]) or "same" * name.endswith(KILLED)]
        print("|", " | ".join(map(str, row)), "|", flush=True)
    print(f"{len(head)} compared, {failed} differ")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
