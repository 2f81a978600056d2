"""Contests of pruners that set weights to zero, ours and llm-compressor: their cells, and figures that no path names.

Each prunes the sample model in a process of its own, and another judges the checkpoint. Loads no torch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

from bench.cells import Cell, own_release
from bench.contest import (
    Contest,
    Ground,
    Job,
    contest_cell,
    dense_cell,
    own_contender,
    peer_or_nothing,
)
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN, accuracies, task_copies, write_texts
from bench.machine import describe_machine
from bench.measurements import spread
from bench.sources import LanguageFiles, fetch_language_files
from bench.study_page import Name, Results, Value
from bench.study_page import measured as figure_of
from bench.windows import SELF_WINDOWS, SelfText, Windows
from core.engine.architectures.describe import inspect_folder
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.measurements.measurement import MeasuredModel, Measurement
from core.methods.descriptions.frontier import FrontierParameters
from core.settings import Settings
from worker.samples.language import CALIBRATION
from worker.samples.zero_shot import add_task_samples

LENGTH: Final = 512
"""Tokens of a calibration sequence."""
Rows = tuple[list[str], list[list[str]]]
"""Header and rows of a table."""


def prepare(spec: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]], threads: int) -> Contest:
    """Return the contest of bodies, judged on so many `windows` of one text or of `both`.

    A body has method, pattern, sparsity and calibration as a job has. With `own_text` as much of the calibration is
    text of the model's own as the service takes by default; a body that `draws` reads no text, and its seed is the
    mask's; `tasks` are questions of each task, and `contender` is who prunes, if not Secateur. Raises MissingData,
    CellFailed.
    """
    settings, facts = Settings(), [own_release()]
    files = LanguageFiles.of(settings)
    model = files.model.absolute()
    if spec["both"]:
        texts, judged_by = write_texts(files, spec["windows"], LENGTH, threads)
        facts.append(judged_by)
    else:
        fetch_language_files(print)
        judging = Windows(model, files.evaluation, "evaluation", spec["windows"], LENGTH)
        texts = {"evaluation": judging.written(threads)}
    limit = max((body.get("tasks", 0) for body in bodies), default=0) or None
    if limit:
        add_task_samples(settings, print)
    ground = Ground(model, files.calibration, texts, task_copies(settings) if limit else {}, threads)
    peer, releases = peer_or_nothing(LENGTH) if any("contender" in body for body in bodies) else (None, [])
    if any(body["calibration"].get("own_text") for body in bodies):
        _, seconds = SelfText(model, LENGTH).written(threads)
        facts.append(
            f"The model wrote {SELF_WINDOWS} × {LENGTH} tokens of its own text once for all cells, in {seconds:.0f} s; "
            "no cell's seconds include this time"
        )

    def cell(title: str, body: Mapping[str, Any]) -> Cell | None:
        drawn, generated = sequences(body)
        seed, parameters = body["calibration"]["seed"], body.get("parameters", {})
        own = own_contender(title, {**parameters, "seed": seed} if body.get("draws") else parameters)
        contender = peer if "contender" in body else own
        windows = Windows(model, files.calibration, "calibration", drawn, LENGTH, seed, generated)
        job = Job(body["method"], body["pattern"], body["sparsity"])
        if contender is None:
            return None
        return contest_cell(title, contender, job, ground, windows, task_limit=body.get("tasks"))

    return Contest(cell, {"dense": dense_cell(ground, limit)}, [*facts, *releases])


def sequences(body: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many of the calibration sequences are drawn, and how many the model writes."""
    samples = body["calibration"]["samples"]
    if not body["calibration"].get("own_text"):
        return samples, 0
    parameters = body.get("parameters", {}) if body["method"] == "frontier" else {}
    drawn, generated = FrontierParameters.model_validate(parameters).split_calibration(samples)
    assert drawn is not None
    return drawn, generated


def settings(results: Results) -> Rows:
    """Return what each setting is."""
    rows = {}
    for name, body in results.planned.items():
        if (title := dict(name.choices)["setting"]) not in rows:
            job = json.dumps({"method": body["method"], "parameters": body.get("parameters", {})})
            whose = f"{body['method']}, its defaults as Secateur's" if "contender" in body else f"`{job}`"
            rows[title] = [title, whose, *map(str, sequences(body))]
    return ["setting", "job", "sequences of the text", "of the model's own"], list(rows.values())


def over_sizes(results: Results) -> Rows:
    """Return perplexities over the numbers of calibration sequences, and whether the mean never rises."""
    axes, rows = results.axes, []
    for setting in axes["setting"]:
        found = {
            size: results.groups({"setting": [setting], "target": ["50 %"], "sequences": [size], "seed": ["0"]})
            for size in axes["sequences"]
        }
        if all(found.values()):
            for text in (IN_DOMAIN, OUT_OF_DOMAIN):
                values = [_mean(results, names, f"perplexity.{text}") for (names,) in found.values()]
                rises = [size for size, one, two in zip([*found][1:], values, values[1:], strict=False) if two > one]
                verdict = f"no: rises at {', '.join(rises)}" if rises else "yes"
                rows.append([f"{setting}, {text}", *(f"{each:,.2f}" for each in values), verdict])
    return ["setting, text", *axes["sequences"], "monotone"], rows


def zero_shot(results: Results) -> Rows:
    """Return the accuracies of those that were asked, in per cent; the error is over questions, not over seeds."""
    rows = [["dense", *accuracies(results.beside["dense"].get("tasks"))]]
    for name, figures in results.found.items():
        if "tasks" in results.planned[name]:
            rows.append([name.without_seed(), *accuracies(figures.get("tasks"))])
    return ["setting", *TASKS, "mean"], rows if len(rows) > 1 else []


def measured(results: Results, threads: int) -> Iterator[Measurement]:
    """Yield a measurement of each of our settings at each target, of the seeds there are."""
    described = inspect_folder(folder := LanguageFiles.of(Settings()).model)
    model = MeasuredModel(name=folder.name, family=described.family, parameters=described.parameters)
    for names in results.groups({"sequences": ["32 sequences"]}):
        body, figures = results.planned[names[0]], [results.found[name] for name in names]
        if "contender" in body:
            continue
        perplexity = {
            key: [each["perplexity"][text] / results.beside["dense"]["perplexity"][text] for each in figures]
            for key, text in (("in_domain", IN_DOMAIN), ("out_of_domain", OUT_OF_DOMAIN))
        }
        reads = not body.get("draws")
        yield Measurement.model_validate(
            {
                "model": model,
                "method": body["method"],
                "pattern": body["pattern"],
                "parameters": body.get("parameters", {}),
                "calibration": CALIBRATION if reads else None,
                "calibration_tokens": sum(sequences(body)) * LENGTH if reads else 0,
                "sparsity": body["sparsity"],
                "perplexity": {key: spread(values) for key, values in perplexity.items()},
                "seconds": spread([each["prune_seconds"] for each in figures]),
                "processor_seconds": spread([each["processor_seconds"] for each in figures]),
                "peak_bytes": max(each["peak_bytes"] for each in figures),
                "machine": describe_machine(),
                "threads": threads,
                "measured": date.fromisoformat(max(each["measured"] for each in figures)[:10]),
                "releases": own_release(),
            }
        )


def _mean(results: Results, names: Sequence[Name], figure: str) -> float:
    value = figure_of(results, list(names), figure)
    return value.mean if isinstance(value, Value) else float("nan")
