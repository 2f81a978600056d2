"""The planner's estimates against what came out: `SECATEUR_HOME=.cache/samples python -m bench.planner [--write PAGE]`.

Each case is a job of the service on the sample model, or on an earlier case's artifact, at an amount or on a text that
no shipped measurement is of. The estimate is what a plan says that knows of no job at all (`release`), and what it says
with the jobs that had ended when the case began (`jobs before`). Jobs are kept by their body, the release and the
machine, so that the command goes on where it was ended; estimates are made anew each time. The second table leaves each
shipped row out and estimates it from the others, which takes no job.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.cells import Cell, Runner, own_release, recall
from bench.machine import describe_machine
from bench.page import show, table
from bench.service import DOCUMENTATION, HANDBOOK, Service, add_texts, sample_service, service_key
from core.database import transaction
from core.service.jobs.resolution.context import RequestContext
from core.service.plans.evidence import Question
from core.service.plans.figures import LossEstimates
from core.service.plans.outcomes import shipped_outcomes
from core.service.plans.service import plan
from core.storage import open_store
from secateur.errors import NotFound
from secateur_wire.plans import Goal, PlanBody, PlanFigure
from worker.samples.language import EVALUATION, MODEL

JOBS_SECTION, ROWS_SECTION = "bench-planner", "bench-planner-rows"
JUDGED_ON: Final = (EVALUATION, HANDBOOK, DOCUMENTATION)
WINDOWS, LENGTH = 16, 512
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """A plan to hold against its job: `asked` is what the plan is asked besides the model, `after` an earlier case."""

    name: str
    goal: Goal
    asked: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None


CASES: Final = (
    Case("zeros 30 %", "sparsity", {"amount": 0.3}),
    Case("zeros 40 %", "sparsity", {"amount": 0.4}),
    Case("zeros 60 %", "sparsity", {"amount": 0.6}),
    Case("zeros 65 %", "sparsity", {"amount": 0.65}),
    Case("zeros 50 %, another text", "sparsity", {"amount": 0.5, "dataset": HANDBOOK}),
    Case("zeros 55 %, its own text", "sparsity", {"amount": 0.55, "dataset": "self"}),
    Case("2:4, another text", "sparsity", {"pattern": "2:4", "dataset": HANDBOOK}),
    Case("30 % of the bytes", "size", {"amount": 0.3}),
    Case("5 % of the parameters", "speed", {"amount": 0.05}),
    Case("10 % of the parameters", "speed", {"amount": 0.1}),
    Case("15.8 %, another text", "speed", {"amount": 0.158, "dataset": HANDBOOK}),
    Case("zeros 40 %, then 60 %", "sparsity", {"amount": 0.6}, after="zeros 40 %"),
    Case("parameters 5 %, then zeros 50 %", "sparsity", {"amount": 0.5}, after="5 % of the parameters"),
    Case("parameters 5 %, then 8 %", "speed", {"amount": 0.08}, after="5 % of the parameters"),
)


@dataclass(frozen=True)
class Outcome:
    """A case that was run: what was estimated, knowing nothing and knowing the jobs before, and the ratio by text."""

    case: Case
    release: PlanFigure | None
    jobs_before: PlanFigure | None
    expected_seconds: float | None
    seconds: float
    ratios: Mapping[str, float]


class Bench:
    """Runs cases as jobs of the service, or recalls them, and asks what a plan said before each."""

    def __init__(self, service: Service, runner: Runner) -> None:
        self._service, self._runner = service, runner
        self._store = open_store(service.settings)
        self._jobs: dict[str, str] = {}

    def outcome(self, case: Case) -> Outcome | None:
        """Return the outcome of a case, None where it was not run; those that it comes after are run first."""
        if case.after is not None and case.after not in self._jobs:
            self.outcome(next(each for each in CASES if each.name == case.after))
        model = MODEL if case.after is None else f"job:{self._jobs.get(case.after)}"
        asked = PlanBody(model=model, goal=case.goal, **case.asked)
        body = self._body(asked)
        cell = Cell(
            case.name,
            f"planner-{service_key(case.name, {**body, 'model': case.after})}",
            lambda: self._run(body),
        )
        known = recall(cell.key)
        runner = self._runner
        if known is not None and not self._is_there(known["job"]):
            runner = replace(runner, is_fresh=True)
        known = runner.figures({None: cell}, lambda told: f"{told['job']}, {told['seconds']:.0f} s").get(None)
        if known is None:
            return None
        self._jobs[case.name] = known["job"]
        before = self._figures(asked, datetime.fromisoformat(known["begun"]))
        return Outcome(
            case,
            self._figures(asked, _NEVER).get("perplexity_ratio"),
            before.get("perplexity_ratio"),
            known["expected_seconds"],
            known["seconds"],
            known["ratios"],
        )

    def _body(self, asked: PlanBody) -> dict[str, Any]:
        """Return the planned job, without training, measured on every text that cases are judged by."""
        planned = self._service.client.plan(**asked.model_dump(exclude_none=True))
        body: dict[str, Any] = {name: value for name, value in planned.job.items() if name != "recovery"}
        judged = {"datasets": list(JUDGED_ON), "samples": WINDOWS, "sequence_length": LENGTH}
        return body | {"evaluation": judged}

    def _run(self, body: dict[str, Any]) -> dict[str, Any]:
        client = self._service.client
        estimate = client.inspect(**body).estimate
        begun = datetime.now(UTC)
        ended = client.wait(client.submit(**body).id).raise_for_status()
        assert ended.metrics is not None and ended.metrics.seconds is not None
        return {
            "job": ended.id,
            "begun": begun.isoformat(),
            "ratios": {name: each.ratio for name, each in ended.metrics.perplexity.items()},
            "expected_seconds": None if estimate is None else estimate.seconds,
            "seconds": ended.metrics.seconds.total,
        }

    def _is_there(self, job_id: str) -> bool:
        try:
            return bool(self._service.client.artifacts(job_id))
        except NotFound:
            return False

    def _figures(self, asked: PlanBody, until: datetime) -> dict[str, PlanFigure]:
        home = self._service.home
        with transaction(home.sessions) as session:
            context = RequestContext(session, home.team_id, self._store, home.settings)
            return plan(context, asked, until=until).figures


def jobs_page(outcomes: Sequence[Outcome], command: str) -> str:
    """Return the section of the jobs."""
    rows = [
        (
            each.case.name,
            text,
            f"{ratio:.2f}",
            *_shown(each.release, ratio),
            *_shown(each.jobs_before, ratio),
        )
        for each in outcomes
        for text, ratio in each.ratios.items()
    ]
    header = ("job", "measured on", "truth", "release", "within", "jobs before", "within")
    pairs = {
        "release": [(each.release, ratio) for each in outcomes for ratio in each.ratios.values()],
        "jobs before": [(each.jobs_before, ratio) for each in outcomes for ratio in each.ratios.values()],
    }
    times = [each.seconds / each.expected_seconds for each in outcomes if each.expected_seconds]
    lines = [f"- {name}: {_verdict(found)}" for name, found in pairs.items()]
    if times:
        spread = f"{min(times):.2f} to {max(times):.2f}, median {median(times):.2f}"
        lines.append(f"- The seconds of a job ÷ their estimate: {spread}.")
    return "\n\n".join(
        [
            f"`{command}`, on {describe_machine()}; {own_release()}. Ratios to the model that the job was given, on "
            f"{WINDOWS} × {LENGTH} tokens of each text, before any training.",
            "\n".join(lines),
            table(header, rows),
        ]
    )


def rows_page() -> str:
    """Return the section of the shipped rows, each estimated from all others."""
    rows, pairs = [], []
    shipped = shipped_outcomes()
    for row in shipped:
        setting = row.setting
        others = [each for each in shipped if each is not row]
        for text, excess in row.excess.items():
            asked = Question(setting, row.subject, row.calibration, row.calibration_tokens, text)
            figure = LossEstimates.of(asked, [], others).ratio(row.share)
            ratio = math.exp(excess)
            pairs.append((figure, ratio))
            name = (
                f"{setting.method}, {setting.pattern}{', ' + setting.layout if setting.pattern == 'structured' else ''}"
            )
            rows.append((name, text.replace("_", " "), f"{row.share:.0%}", f"{ratio:.2f}", *_shown(figure, ratio)))
    return f"{_verdict(pairs)}\n\n{table(('row', 'text', 'share', 'truth', 'estimate', 'within'), rows)}"


def _shown(figure: PlanFigure | None, truth: float) -> Iterator[str]:
    if figure is None:
        yield from ("not known", "")
    else:
        yield f"{figure.estimate:.2f} ({figure.low:.2f} to {figure.high:.2f})"
        yield "yes" if figure.low <= truth <= figure.high else "no"


def _verdict(pairs: Sequence[tuple[PlanFigure | None, float]]) -> str:
    """Return in words how many outcomes lay within their bands, how wide those are, and how far off estimates are."""
    told = [(figure, truth) for figure, truth in pairs if figure is not None]
    if not told:
        return f"none of {len(pairs)} outcomes is estimated."
    inside = sum(figure.low <= truth <= figure.high for figure, truth in told)
    width = median(figure.high / figure.low for figure, _ in told)
    error = median(max(figure.estimate / truth, truth / figure.estimate) - 1 for figure, truth in told)
    return (
        f"{inside} of {len(told)} outcomes ({inside / len(told):.0%}) lie within their bands. In the median, the "
        f"high end of a band is {width:.2f} times its low end, and the error is {error:.1%} of the perplexity. "
        f"{len(pairs) - len(told)} more outcomes are not estimated."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the tables; 1 where fewer than four of five outcomes lie within their bands."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner", description=__doc__)
    names = [each.name for each in CASES]
    parser.add_argument("--cases", nargs="*", choices=names, default=names, help="none: the shipped rows alone")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's sections too")
    options = parser.parse_args(arguments)
    show(rows_page(), ROWS_SECTION, options.write)
    if not options.cases:
        return 0
    with sample_service() as service:
        add_texts(service.home)
        bench = Bench(service, Runner.of(options))
        outcomes = [found for each in CASES if each.name in options.cases and (found := bench.outcome(each))]
    text = jobs_page(outcomes, " ".join(["python -m bench.planner", *map(repr, arguments or sys.argv[1:])]))
    show(text, JOBS_SECTION, options.write)
    judged = [(each.release, ratio) for each in outcomes for ratio in each.ratios.values() if each.release is not None]
    inside = sum(figure.low <= ratio <= figure.high for figure, ratio in judged if figure is not None)
    return int(inside < 0.8 * len(judged))


if __name__ == "__main__":
    sys.exit(main())
