"""`secateur plan`: turns a goal into a job with reasons and estimates, and submits it on request."""

import json
from typing import Annotated, Any, Final, get_args

import typer

from secateur.cli.output import (
    JsonOption,
    WaitPrinter,
    connect,
    explain,
    print_alternatives,
    print_json,
    print_pairs,
    print_table,
    say,
)
from secateur.cli.submit import ModelArgument
from secateur.formatting import duration
from secateur_wire.plans import FigureName, Goal, Plan, PlanFigure

GOAL_HELP: Final = (
    "speed: smaller and faster on ordinary hardware. size: fewer bytes to store and send. sparsity: zeros, for a "
    "runtime that uses them. sensitivity: find out what the model can lose."
)
KeepQualityOption = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO",
        help="In place of --amount: the largest allowed ratio of the pruned model's perplexity to "
        "the dense model's, such as 1.1.",
    ),
]
PlanPatternOption = Annotated[
    str | None,
    typer.Option(
        help="For sparsity: n:m, such as 2:4, keeps n of every m neighbouring weights. Unset: zeros anywhere."
    ),
]
_TITLES: Final[dict[FigureName, str]] = {
    "answer_kl": "KL of answers, nats a token",
    "perplexity_ratio": "perplexity ÷ dense",
    "bits_per_byte_ratio": "bits per byte ÷ dense",
    "bytes_ratio": "bytes ÷ dense",
    "prefill_ratio": "prefill time (reading the prompt) ÷ dense",
    "decode_ratio": "decode time (a token) ÷ dense",
    "seconds": "time of the job",
}


def plan(
    model: ModelArgument,
    goal: Annotated[
        Goal,
        typer.Option(
            "--for",
            help=GOAL_HELP,
        ),
    ],
    amount: Annotated[
        float | None,
        typer.Option(help="Share to remove: of the parameters (speed), bytes (size) or prunable weights (sparsity)."),
    ] = None,
    keep_quality: KeepQualityOption = None,
    pattern: PlanPatternOption = None,
    calibration: Annotated[
        str | None, typer.Option(metavar="NAME", help="The text to calibrate on. Unset: a registered one.")
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the planned job.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Plan a job for a goal: what to do, why, and what to expect. --submit submits it."""
    with connect() as client:
        planned = client.plan(
            model,
            goal,
            amount=amount,
            keep_quality=keep_quality,
            pattern=pattern,
            dataset=calibration,
            on_wait=WaitPrinter(),
        )
        body: dict[str, Any] = dict(planned.job)
        job = client.submit(**body) if submit else None
    if as_json:
        print_json(planned if job is None else job)
        return
    print_plan(planned)
    if job is not None:
        for each in job.warnings:
            explain(f"warning: {each}")
        say(f"{job.id} is {job.status}. Follow it with: secateur watch {job.id}")


def print_plan(planned: Plan) -> None:
    """Print a plan, its reasons and its expected outcome, as ranges with their evidence."""
    say(planned.summary)
    say("")
    print_pairs([(each.field, f"{_value(each.value)}: {each.reason}") for each in planned.choices])
    if planned.figures:
        say("")
        print_table(
            ("estimate", "expected", "between", "from"),
            [_row(name, planned.figures[name]) for name in get_args(FigureName) if name in planned.figures],
            numbers=(1, 2),
        )
    rated = [point for point in planned.points if "perplexity_ratio" in point.figures]
    if len(rated) > 1:
        print_table(
            ("amount", "perplexity ÷ dense", "between"),
            [
                (f"{point.amount:.0%}", *_row("perplexity_ratio", point.figures["perplexity_ratio"])[1:3])
                for point in rated
            ],
            numbers=(1, 2),
        )
    print_alternatives(planned.alternatives)
    if planned.instead is not None:
        say(f"Instead of pruning, submit this job: {json.dumps(planned.instead)}")
    for each in planned.unknown:
        say(f"Not known: {each}.")
    for each in planned.warnings:
        explain(f"warning: {each}")


def _row(name: FigureName, figure: PlanFigure) -> tuple[str, str, str, str]:
    values = [
        duration(each) if name == "seconds" else f"{each:.2f}" for each in (figure.estimate, figure.low, figure.high)
    ]
    between = "exact" if figure.low == figure.high else f"{values[1]} to {values[2]}"
    return _TITLES[name], values[0], between, figure.basis


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
