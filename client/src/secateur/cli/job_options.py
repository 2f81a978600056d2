"""The options of `secateur submit` and `secateur inspect`, and the job body they say."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

import typer
from pydantic import JsonValue

GATES: Final = (
    "max_perplexity_ratio",
    "max_accuracy_drop",
    "max_task_accuracy_drop",
    "max_latency_ratio",
    "max_bytes",
    "max_bytes_ratio",
    "max_parameters",
    "max_export_kl",
)


@dataclass(frozen=True)
class JobOptions:
    """A job as options describe it. What is None is left to the server's defaults."""

    model: str
    method: str
    sparsity: float | None = None
    target: str | None = None
    pattern: str | None = None
    parameters: list[str] = field(default_factory=list)
    calibration: str | None = None
    calibration_samples: str | None = None
    calibration_generated: int | None = None
    sequence_length: int | None = None
    seed: int | None = None
    evaluation: list[str] = field(default_factory=list)
    evaluation_samples: str | None = None
    tasks: list[str] = field(default_factory=list)
    task_limit: str | None = None
    prompts: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    max_perplexity_ratio: float | None = None
    max_accuracy_drop: float | None = None
    max_task_accuracy_drop: float | None = None
    max_latency_ratio: float | None = None
    max_bytes: int | None = None
    max_bytes_ratio: float | None = None
    max_parameters: int | None = None
    max_export_kl: float | None = None
    recovery: str | None = None
    recovery_steps: int | None = None
    recovery_dataset: str | None = None
    recovery_parameters: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    queue: str | None = None
    priority: int | None = None
    format: str | None = None
    layout: str | None = None
    exports: list[str] = field(default_factory=list)
    time_limit_seconds: float | None = None

    def body(self) -> dict[str, Any]:
        """Return the job body, without a method where none is named.

        Raises typer.BadParameter for options that make no valid body.
        """
        if not self.model:
            raise typer.BadParameter("name the MODEL to prune, or give a whole job with --body FILE")
        parameters = {name: _json_or_text(value) for name, value in pairs(self.parameters, "--parameter").items()}
        if self.seed is not None:
            parameters.setdefault("seed", self.seed)
        body: dict[str, Any] = {"model": self.model}
        body |= _given(
            method=self.method or None,
            sparsity=self.sparsity,
            pattern=self.pattern,
            queue=self.queue,
            priority=self.priority,
            time_limit_seconds=self.time_limit_seconds,
        )
        if self.target is not None:
            body["target"] = {name: _json_or_text(value) for name, value in pairs([self.target], "--target").items()}
        output = _given(format=self.format, layout=self.layout)
        output |= {"exports": [_export(each) for each in self.exports]} if self.exports else {}
        body |= {"output": output} if output else {}
        body |= {"parameters": parameters} if parameters else {}
        body |= self._texts()
        body |= self._recovery()
        gates = _given(**{name: getattr(self, name) for name in GATES})
        body |= {"gates": gates} if gates else {}
        if self.metadata:
            body["metadata"] = dict(pairs(self.metadata, "--metadata"))
        return body

    def _recovery(self) -> dict[str, JsonValue]:
        given = _given(steps=self.recovery_steps, dataset=self.recovery_dataset)
        for name, value in pairs(self.recovery_parameters, "--recovery-parameter").items():
            if name in ("method", *given):
                raise typer.BadParameter(f"--recovery-parameter {name} has an option of its own, which is given too")
            given[name] = _json_or_text(value)
        if self.recovery is None:
            if given:
                raise typer.BadParameter(f"--recovery METHOD is needed to train with {', '.join(given)}")
            return {}
        return {"recovery": {"method": self.recovery, **given}}

    def _texts(self) -> dict[str, JsonValue]:
        if self.calibration is None and self.calibration_samples is not None:
            raise typer.BadParameter("--calibration-samples needs --calibration NAME, the text to take them from")
        if self.calibration is None and self.calibration_generated is not None:
            raise typer.BadParameter("--calibration-generated needs --calibration NAME, the text they are beside")
        if not self.evaluation and self.evaluation_samples is not None:
            raise typer.BadParameter("--evaluation-samples needs --evaluation NAME, the text to take them from")
        if not self.tasks and self.task_limit is not None:
            raise typer.BadParameter("--task-limit needs --task NAME, the task whose questions to ask")
        if not self.prompts and self.prompt_tokens is not None:
            raise typer.BadParameter("--prompt-tokens needs --prompt TEXT, which they are to follow")
        if self.calibration is None and not self.evaluation and self.sequence_length is not None:
            raise typer.BadParameter("--sequence-length needs --calibration NAME or --evaluation NAME")
        texts: dict[str, JsonValue] = {}
        length = _given(sequence_length=self.sequence_length)
        if self.calibration is not None:
            samples = _samples(self.calibration_samples, "--calibration-samples")
            more = _given(seed=self.seed, generated=self.calibration_generated)
            texts["calibration"] = {"dataset": self.calibration, **samples, **length, **more}
        measured: dict[str, JsonValue] = {}
        if self.evaluation:
            samples = _samples(self.evaluation_samples, "--evaluation-samples")
            measured |= {"datasets": list(self.evaluation), **samples, **length}
        if self.tasks:
            measured |= {"tasks": list(self.tasks), **_samples(self.task_limit, "--task-limit", "task_limit")}
        if self.prompts:
            measured |= {"prompts": list(self.prompts), **_given(prompt_tokens=self.prompt_tokens)}
        return texts | ({"evaluation": measured} if measured else {})


def _given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}


def _export(text: str) -> dict[str, JsonValue]:
    form, _, types = text.partition(":")
    if not form or not all(named := types.split(",")):
        raise typer.BadParameter(f"--export {text!r}: write FORM:TYPE, or FORM:TYPE,TYPE, such as gguf:F16,Q8_0")
    return {"format": form, "types": [*named]}


def _samples(text: str | None, option: str, name: str = "samples") -> dict[str, JsonValue]:
    if text is None:
        return {}
    if text == "all":
        return {name: None}
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{option} {text!r}: give a number of at least 1, or `all`")
    return {name: int(text)}


def pairs(given: list[str], option: str) -> dict[str, str]:
    """Parse NAME=VALUE, each name once."""
    by_name: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{option} {text!r}: write NAME=VALUE")
        if name in by_name:
            raise typer.BadParameter(f"{option} {name} is given twice")
        by_name[name] = value
    return by_name


def _json_or_text(text: str) -> JsonValue:
    """Parse JSON such as `0.5`, `true`, `[1, 2]` and `"0.5"`; what is no JSON, like `row`, is text."""
    try:
        value: JsonValue = json.loads(text, parse_constant=lambda constant: constant)
    except ValueError:
        return text
    return value
