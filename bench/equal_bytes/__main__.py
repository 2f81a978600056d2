"""The map of bytes and quality: `SECATEUR_HOME=.cache/samples python -m bench.equal_bytes [--write PAGE]`.

Every cell is a job of the service on the judge (`python -m bench.judge`), kept by what it depends on: the command goes
on where it was ended. A job that the service refuses is left out, with its reason.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.cells import Cell, CellFailed, Figures, Runner, engine_program, own_release
from bench.equal_bytes.plan import BITS, ROWS, THIRD, bodies
from bench.equal_bytes.report import measured_files, page, plot
from bench.judge import JUDGE
from bench.judge.texts import add_texts
from bench.judging_texts import positive
from bench.machine import describe_machine
from bench.page import show
from bench.service import Service, sample_service, service_key
from secateur_wire.errors import NotFound, SecateurError

SECTION: Final = "bench-bytes"


def run_job(service: Service, body: Mapping[str, Any]) -> Figures:
    """Run a job to its end and return its figures; raises CellFailed where it is refused or fails."""
    try:
        ended = service.client.wait(service.client.submit(**body).id)
        ended.raise_for_status()
        report = service.client.report(ended.id).document()
    except SecateurError as error:
        raise CellFailed(str(error)) from error
    assert ended.metrics is not None
    metrics = ended.metrics.document()
    return {
        "job": ended.id,
        "seconds": metrics["seconds"],
        "files": measured_files(metrics, report),
        "equal_bytes": metrics.get("equal_bytes", {}),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the tables; 1 where a cell is not there."""
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    code = engine_program("bench.cell:main").code
    with sample_service() as service:
        add_texts(service.home)
        try:
            revision = service.client.model(given.model).revision
        except NotFound:
            print(f"no model {given.model}: `python -m bench.judge` makes {JUDGE}", file=sys.stderr)
            return 1
        cells = {
            name: Cell(
                name.title,
                f"bytes-{service_key(name, body, revision, code)}",
                partial(run_job, service, {"model": given.model, **body}),
            )
            for name, body in bodies(given)
        }
        found = runner.figures(cells, lambda told: f"{told['job']}, {told['seconds']['total']:.0f} s")
    command = f"python -m bench.equal_bytes {shlex.join(sys.argv[1:] if arguments is None else arguments)}".strip()
    facts = (
        f"`{command}`, on {describe_machine()}; {own_release()}. {given.model}: calibrated on {given.samples} × "
        f"{given.length} tokens, judged on {given.windows} × {given.length} tokens of each text. The third text is "
        f"{THIRD}. Distilled models were trained for {given.steps} steps of 4 × 256 tokens."
    )
    drawn = [f"![bits per byte over the bytes of files]({given.write.stem}.svg)"] if given.write and found else []
    show("\n\n".join([facts, *drawn, page(found, runner.failures)]), SECTION, given.write)
    if drawn:
        given.write.with_suffix(".svg").write_text(plot(found, given.model), "utf-8")
    return int(len(found) < len(cells))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.equal_bytes", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=JUDGE, help=f"model of the home (default {JUDGE})")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW", help="; ".join(ROWS))
    parser.add_argument("--bits", nargs="*", type=int, choices=BITS, default=list(BITS), help="bits of weights")
    parser.add_argument("--distilled", nargs="*", choices=("no", "yes"), default=["no"], help="train (default no)")
    parser.add_argument("--seeds", type=positive, default=3, help="draws of calibration text (default 3)")
    parser.add_argument("--samples", type=positive, default=128, help="calibration sequences (default 128)")
    parser.add_argument("--length", type=positive, default=256, help="tokens of a sequence (default 256)")
    parser.add_argument("--windows", type=positive, default=32, help="sequences of each text judged by (default 32)")
    parser.add_argument("--steps", type=positive, default=100, help="steps of a distillation (default 100)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section, and its plot beside it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
