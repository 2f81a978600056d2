"""`secateur submit`: a job from options, or from a body that is written down."""

import json
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from secateur.cli.end_options import (
    BytesOption,
    BytesRatioOption,
    DropOption,
    ExportKlOption,
    JunitOption,
    LatencyRatioOption,
    MarkdownOption,
    ParametersOption,
    RatioOption,
    SummaryOption,
    TaskDropOption,
)
from secateur.cli.identifiers import complete_model
from secateur.cli.job_options import JobOptions
from secateur.cli.output import JsonOption, WaitShown, answer_to, connect, explain, print_json, say
from secateur.cli.summary import SummaryFiles
from secateur.cli.watch import follow, show_end
from secateur.client import Client
from secateur.errors import InvalidRequest
from secateur.jobs import Job
from secateur.summary import exit_code

_MODEL_HELP = "A registered model, org/name[@revision] on the hub, or job:ID for the artifact of a job."
ModelArgument = Annotated[
    str,
    typer.Argument(callback=complete_model, help=_MODEL_HELP),
]
USUAL_METHOD = "frontier"
OWN_TEXT: Final = "self"
"""Name of the text that the model writes itself."""
OWN_SAMPLES: Final = 32
"""Sequences of it to calibrate on, where it is offered."""
MOST_OFFERED: Final = 20
"""Datasets among which those to calibrate on are offered."""
USAGE: Final = 2
"""Exit code of a call that lacks something."""
MethodOption = Annotated[
    str | None,
    typer.Option(
        help=f"How to prune; `secateur methods` lists them. Unset: {USUAL_METHOD} where the model is a language model."
    ),
]
SparsityOption = Annotated[float | None, typer.Option(help="Share of the prunable weights to remove, 0 to below 1.")]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="In place of --sparsity: parameters=1e8, bytes=2.5e8 or latency_ratio=0.7, at most.",
    ),
]
PatternOption = Annotated[str | None, typer.Option(help="unstructured (the default) or n:m, for example 2:4.")]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A parameter of the method; VALUE is JSON, or else text. Repeatable."),
]
CalibrationOption = Annotated[str | None, typer.Option(metavar="NAME", help="The text to calibrate on.")]
SamplesOption = Annotated[str | None, typer.Option(metavar="N|all", help="How many sequences to calibrate on.")]
GeneratedOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Sequences the model writes itself, to calibrate on beside those of the text."),
]
LengthOption = Annotated[int | None, typer.Option(help="Tokens in a sequence, in calibration and evaluation.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random in the run.")]
EvaluationOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A text to measure perplexity on. Repeatable.")
]
EvaluationSamplesOption = Annotated[str | None, typer.Option(metavar="N|all", help="How many sequences to measure on.")]
TaskOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A zero-shot task to measure accuracy on. Repeatable.")
]
TaskLimitOption = Annotated[str | None, typer.Option(metavar="N|all", help="How many questions of each task to ask.")]
PromptOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A text for dense and pruned to go on from, for the report. Repeatable."),
]
PromptTokensOption = Annotated[int | None, typer.Option(metavar="N", help="New tokens after each prompt, at most.")]
RecoveryOption = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="Train after pruning, zeros kept: finetune, lora (adapters) or distill (from the dense model).",
    ),
]
RecoveryStepsOption = Annotated[int | None, typer.Option(help="Optimiser steps of the recovery.")]
RecoveryDatasetOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The text to train on; unset, the calibration's.")
]
RecoveryParameterOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help='Anything else of the recovery; VALUE is JSON, or else text: learning_rate=1e-4, lora={"r": 16}. '
        "Repeatable.",
    ),
]
MetadataOption = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label. Repeatable.")]
QueueOption = Annotated[str | None, typer.Option(help="The queue of the workers to run it.")]
PriorityOption = Annotated[int | None, typer.Option(help="Higher goes first.")]
FormatOption = Annotated[
    str | None,
    typer.Option(
        metavar="FORM",
        help="packed: bitmasks and surviving values; hashed, of image classifiers: linear layers share a few values. "
        "`download --unpack` restores both.",
    ),
]
LayoutOption = Annotated[
    Literal["uniform", "per_layer"] | None,
    typer.Option(help="per_layer: structured methods may leave layers of different shapes."),
]
ExportOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORM:TYPES",
        help="Files to add, each run by what it is for before the job ends: gguf:F16,Q8_0 for llama.cpp. Repeatable.",
    ),
]
TimeLimitOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="Of one attempt.")]
BodyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        allow_dash=True,
        help="A whole job body as JSON, as POST /v1/jobs takes it, in place of everything else; - is standard input.",
    ),
]


def submit(
    model: Annotated[str | None, typer.Argument(callback=complete_model, help=_MODEL_HELP)] = None,
    method: MethodOption = None,
    sparsity: SparsityOption = None,
    target: TargetOption = None,
    pattern: PatternOption = None,
    parameter: ParameterOption = None,
    calibration: CalibrationOption = None,
    calibration_samples: SamplesOption = None,
    calibration_generated: GeneratedOption = None,
    sequence_length: LengthOption = None,
    seed: SeedOption = None,
    evaluation: EvaluationOption = None,
    evaluation_samples: EvaluationSamplesOption = None,
    task: TaskOption = None,
    task_limit: TaskLimitOption = None,
    prompt: PromptOption = None,
    prompt_tokens: PromptTokensOption = None,
    recovery: RecoveryOption = None,
    recovery_steps: RecoveryStepsOption = None,
    recovery_dataset: RecoveryDatasetOption = None,
    recovery_parameter: RecoveryParameterOption = None,
    max_perplexity_ratio: RatioOption = None,
    max_accuracy_drop: DropOption = None,
    max_task_accuracy_drop: TaskDropOption = None,
    max_latency_ratio: LatencyRatioOption = None,
    max_bytes: BytesOption = None,
    max_bytes_ratio: BytesRatioOption = None,
    max_parameters: ParametersOption = None,
    max_export_kl: ExportKlOption = None,
    metadata: MetadataOption = None,
    queue: QueueOption = None,
    priority: PriorityOption = None,
    format: FormatOption = None,
    layout: LayoutOption = None,
    export: ExportOption = None,
    time_limit: TimeLimitOption = None,
    body: BodyOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Said again with the same job, it is the same job, no second one.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end; the exit code says how.")] = False,
    summary: SummaryOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    only_id: Annotated[bool, typer.Option("--id", help="Print the job's id and nothing else, for scripts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job."""
    options = JobOptions(
        model=model or "",
        method=method or "",
        sparsity=sparsity,
        target=target,
        pattern=pattern,
        parameters=parameter or [],
        calibration=calibration,
        calibration_samples=calibration_samples,
        calibration_generated=calibration_generated,
        sequence_length=sequence_length,
        seed=seed,
        evaluation=evaluation or [],
        evaluation_samples=evaluation_samples,
        tasks=task or [],
        task_limit=task_limit,
        prompts=prompt or [],
        prompt_tokens=prompt_tokens,
        recovery=recovery,
        recovery_steps=recovery_steps,
        recovery_dataset=recovery_dataset,
        recovery_parameters=recovery_parameter or [],
        max_perplexity_ratio=max_perplexity_ratio,
        max_accuracy_drop=max_accuracy_drop,
        max_task_accuracy_drop=max_task_accuracy_drop,
        max_latency_ratio=max_latency_ratio,
        max_bytes=max_bytes,
        max_bytes_ratio=max_bytes_ratio,
        max_parameters=max_parameters,
        max_export_kl=max_export_kl,
        metadata=metadata or [],
        queue=queue,
        priority=priority,
        format=format,
        layout=layout,
        exports=export or [],
        time_limit_seconds=time_limit,
    )
    job_body = options.body() if body is None else _read_body(body, options)
    files = SummaryFiles(summary, markdown, junit)
    if files and not wait:
        raise typer.BadParameter("--summary, --markdown and --junit say how the job ended: add --wait")
    if only_id and as_json:
        raise typer.BadParameter("--id and --json: choose one to print")
    with connect() as client:
        if "method" not in job_body:
            job_body["method"] = _usual_method(client, job_body["model"])
        job = _submitted(client, job_body, idempotency_key)
        for each in job.warnings:
            explain(f"warning: {each}")
        if only_id:
            print(job.id, flush=True)
        if wait:
            job = follow(client, job.id)
            files.write_for(client, job)
            show_end(job, as_json, quiet=only_id)
            raise typer.Exit(exit_code(job))
    if as_json:
        print_json(job)
    elif not only_id:
        say(f"{job.id} is {job.status}. Follow it with: secateur watch {job.id}")


def _usual_method(client: Client, model: str) -> str:
    """Return the method used for a model where none is named. Raises typer.BadParameter where one must be named."""
    inspection = client.inspect(model, on_wait=WaitShown())
    fitting = [fit.method for fit in inspection.methods if fit.fits]
    if USUAL_METHOD not in fitting:
        raise typer.BadParameter(f"name the method with --method; for this model: {', '.join(fitting) or 'none fits'}")
    return USUAL_METHOD


def _submitted(client: Client, body: dict[str, Any], idempotency_key: str | None) -> Job:
    """Submit the job; where it lacks a calibration, name what there is to calibrate on, or ask on a terminal.

    Where there is nobody to ask, a command for each is shown, and this exits.
    """
    try:
        return client.submit(idempotency_key=idempotency_key, **body)
    except InvalidRequest as error:
        if error.param != "calibration" or body.get("calibration") is not None:
            raise
        reason = error.detail.partition(", for example")[0]
    is_text = client.inspect(body["model"], on_wait=WaitShown()).task == "language-model"
    names = [each.name for each in islice(client.datasets(), MOST_OFFERED) if (each.images is None) is is_text]
    offered = [*names, OWN_TEXT] if is_text else names
    if offered and sys.stdin.isatty() and sys.stderr.isatty():
        explain(reason)
        chosen = answer_to(f"Calibrate on ({', '.join(offered)})", offered[0])
        calibration = {"dataset": chosen} | ({"samples": OWN_SAMPLES} if chosen == OWN_TEXT else {})
        return client.submit(idempotency_key=idempotency_key, **body, calibration=calibration)
    command = shlex.join(["secateur", *sys.argv[1:]])
    ways = [
        f"{command} --calibration {name}" + (f" --calibration-samples {OWN_SAMPLES}" if name == OWN_TEXT else "")
        for name in offered
    ]
    added = "secateur datasets add NAME PATH"
    explain(f"{reason}. Write one of these, or register {'text' if is_text else 'images'} of yours with `{added}`:")
    for way in ways:
        print(f"  {way}", file=sys.stderr)
    raise typer.Exit(USAGE)


def _read_body(file: Path, options: JobOptions) -> dict[str, Any]:
    """Read a job body from a file. Raises typer.BadParameter where it is none, or where other options are given too."""
    if options != JobOptions(model="", method=""):
        raise typer.BadParameter("--body says everything: leave the model and the other options out")
    try:
        body = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--body {file}: {error}") from None
    if not isinstance(body, dict) or not {"model", "method"} <= body.keys():
        raise typer.BadParameter(f'--body {file}: write a JSON object such as {{"model": "NAME", "method": "wanda"}}')
    return body
