"""Texts and questions by which benches judge a language model, and how they speak of them. Loads no torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from bench.cells import CACHE
from bench.handbook import LICENCE, write_handbook
from bench.page import MISSING
from bench.sources import LanguageFiles, fetch_language_files
from bench.windows import Windows
from core.engine.evaluation.zero_shot_tasks import TASKS, local_copy
from core.settings import Settings

IN_DOMAIN, OUT_OF_DOMAIN = "in domain", "out of domain"
_HANDBOOK = CACHE / "handbook.jsonl"


def write_texts(files: LanguageFiles, windows: int, length: int, threads: int) -> tuple[dict[str, Path], str]:
    """Fetch what is missing; return the files of so many windows of each text by name, and what a page says of them.

    Raises MissingData, CellFailed.
    """
    origin = write_handbook(_HANDBOOK)
    fetch_language_files(print)
    texts = {
        name: Windows(files.model.absolute(), text, "evaluation", windows, length).written(threads)
        for name, text in ((IN_DOMAIN, files.evaluation), (OUT_OF_DOMAIN, _HANDBOOK))
    }
    return texts, (
        f"Perplexity is measured on {windows} × {length} tokens of {files.evaluation.stem} ({IN_DOMAIN}) and on as "
        f"many of the Debian Administrator's Handbook ({OUT_OF_DOMAIN}): {origin}, R. Hertzog and R. Mas, {LICENCE}."
    )


def task_copies(settings: Settings) -> dict[str, Path]:
    """Return the questions of each zero-shot task that this machine has a copy of."""
    copies = {name: local_copy(settings.local_tasks, task) for name, task in TASKS.items()}
    return {name: copy for name, copy in copies.items() if copy}


def accuracies(tasks: Mapping[str, Mapping[str, float]] | None) -> list[str]:
    """Every task's, and the mean with the standard error of a mean of independent means."""
    if not tasks:
        return [MISSING] * (len(TASKS) + 1)
    metrics = [(name, task.metric) for name, task in TASKS.items()]
    pairs = [(tasks[name][metric], tasks[name][f"{metric}_stderr"]) for name, metric in metrics]
    error = math.sqrt(sum(each**2 for _, each in pairs)) / len(pairs)
    pairs.append((fmean(accuracy for accuracy, _ in pairs), error))
    return [f"{100 * accuracy:.1f} ± {100 * error:.1f}" for accuracy, error in pairs]
