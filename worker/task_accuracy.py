"""Zero-shot accuracy of dense and pruned, each asked by a runner of its own, side by side."""

from collections.abc import Callable
from statistics import mean
from typing import Any

from core.catalogue.tasks import TASKS
from core.settings import Settings
from worker.protocol import ModelPlace, PruneSpec, TasksSpec, TextSource

Ask = Callable[[TasksSpec, tuple[float, float]], dict[str, Any]]
"""Runs a runner's task, given the part of its share of the progress that it covers."""


def compare_tasks(
    ask: Ask, spec: PruneSpec, questions: list[TextSource], settings: Settings, report: dict[str, Any]
) -> dict[str, Any]:
    """`tasks` and `task_mean` for the metrics; nothing where no task was asked for. The rest goes into `report`."""
    if not questions:
        return {}
    limit = spec.recipe["evaluation"]["task_limit"]

    def measured(model: ModelPlace, part: tuple[float, float]) -> dict[str, Any]:
        return ask(
            TasksSpec(
                model=model,
                questions=questions,
                limit=limit,
                work=spec.work / "tasks",
                device=settings.device,
                threads=settings.threads,
            ),
            part,
        )

    answers = {"dense": measured(spec.model.place, (0.0, 0.5)), "pruned": measured(spec.made, (0.5, 1.0))}
    for name, answer in answers.items():
        report.setdefault("peak_memory_of_other_processes", {})[f"tasks_{name}"] = answer["peak_memory"]
    report["versions"]["lm_eval"] = answers["dense"]["lm_eval"]
    report["tasks"] = {
        "limit": limit,
        "examples_in_prompt": 0,
        "questions": {each.name: {"sha256": each.sha256, **each.origin} for each in questions},
        "measured": {name: answer["tasks"] for name, answer in answers.items()},
    }
    report.setdefault("notes", []).extend(_notes(questions))
    tasks = {each.name: _pair(each.name, answers) for each in questions}
    return {
        "tasks": tasks,
        "task_mean": {name: mean(figures[name] for figures in tasks.values()) for name in answers},
    }


def _pair(name: str, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    metric = TASKS[name].metric
    figures: dict[str, Any] = {}
    for model, answer in answers.items():
        figures[model] = answer["tasks"][name][metric]
        figures[f"{model}_stderr"] = answer["tasks"][name][f"{metric}_stderr"]
    return figures | {"metric": metric, "samples": answers["dense"]["tasks"][name]["samples"]}


def _notes(questions: list[TextSource]) -> list[str]:
    return [
        f"The questions of {each.name} are those of its split {each.origin['split']}; papers report "
        f"{TASKS[each.name].splits[0]}."
        for each in questions
        if each.origin["split"] != TASKS[each.name].splits[0]
    ]
