"""The same job as a request of curl, as a command and as Python, each for copying."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from secateur_wire.job_body import ModelLimits

_WIDTH: Final = 100
_CONTINUED: Final = " \\\n  "


@dataclass(frozen=True)
class Commands:
    """Three ways to submit the same body."""

    curl: str
    cli: str
    python: str


def commands_for(body: Mapping[str, Any], url: str) -> Commands:
    """Return the commands that submit a minimal `body` to the service at `url`."""
    return Commands(curl=_curl(body, url), cli=_cli(body), python=_python(body, url))


def _curl(body: Mapping[str, Any], url: str) -> str:
    parts = [
        f"curl -sS {shlex.quote(f'{url}/v1/jobs')}",
        '-H "Authorization: Bearer $SECATEUR_API_KEY"',
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(_json(body))}",
    ]
    return _CONTINUED.join(parts)


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False)


def _python(body: Mapping[str, Any], url: str) -> str:
    arguments = "".join(f"        {name}={_literal(value, 8)},\n" for name, value in body.items())
    return (
        "from secateur import Client\n\n"
        f"with Client({url!r}) as client:  # the key is read from SECATEUR_API_KEY\n"
        f"    job = client.submit(\n{arguments}    )\n"
        "    print(client.wait(job.id).status)"
    )


def _literal(value: Any, indent: int) -> str:
    """Format a value as a Python literal, over several lines where one would be too long."""
    plain = repr(value)
    if indent + len(plain) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return plain
    inner = indent + 4
    items = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    lines = [" " * inner + ("" if name is None else f"{name!r}: ") + _literal(each, inner) for name, each in items]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + "".join(f"{line},\n" for line in lines) + " " * indent + closing


def _cli(body: Mapping[str, Any]) -> str:
    options = _options(body)
    if options is None or body["model"].startswith("-"):
        return f"secateur submit --body - <<'BODY'\n{_json(body)}\nBODY"
    first = f"secateur submit {shlex.quote(body['model'])}"
    return _CONTINUED.join([first, *(f"{name} {shlex.quote(value)}" for name, value in options)])


def _options(body: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Return the options of `secateur submit` for a body; None where they cannot express all of it."""
    remaining = {name: dict(value) if isinstance(value, Mapping) else value for name, value in body.items()}
    options: list[tuple[str, str]] = []

    def take(option: str, part: Any, name: str) -> None:
        if name in part:
            value = part.pop(name)
            options.append((option, "all" if value is None else _text(value)))

    def take_all(option: str, pairs: dict[str, Any]) -> None:
        options.extend((option, f"{name}={_json_or_text(value)}") for name, value in pairs.items())
        pairs.clear()

    remaining.pop("model")
    for option, name in (("--method", "method"), ("--sparsity", "sparsity"), ("--pattern", "pattern")):
        take(option, remaining, name)
    take_all("--target", remaining.get("target", {}))
    calibration, evaluation = remaining.get("calibration", {}), remaining.get("evaluation", {})
    parameters = remaining.get("parameters", {})
    if "seed" in calibration:
        if calibration["seed"] != parameters.pop("seed", 0):
            return None
        take("--seed", calibration, "seed")
    take_all("--parameter", parameters)
    take("--calibration", calibration, "dataset")
    take("--calibration-samples", calibration, "samples")
    take("--calibration-generated", calibration, "generated")
    if not _take_length(remaining, options):
        return None
    datasets, tasks = evaluation.pop("datasets", []), evaluation.pop("tasks", [])
    options.extend(("--evaluation", name) for name in datasets)
    if datasets:
        take("--evaluation-samples", evaluation, "samples")
    options.extend(("--task", name) for name in tasks)
    if tasks:
        take("--task-limit", evaluation, "task_limit")
    options.extend(("--prompt", text) for text in evaluation.pop("prompts", []))
    take("--prompt-tokens", evaluation, "prompt_tokens")
    recovery = remaining.get("recovery", {})
    take("--recovery", recovery, "method")
    take("--recovery-steps", recovery, "steps")
    take("--recovery-dataset", recovery, "dataset")
    take_all("--recovery-parameter", recovery)
    for gate in ModelLimits.model_fields:
        take(f"--{gate.replace('_', '-')}", remaining.get("gates", {}), gate)
    take("--format", remaining.get("output", {}), "format")
    take("--layout", remaining.get("output", {}), "layout")
    options.extend(("--metadata", f"{name}={value}") for name, value in remaining.pop("metadata", {}).items())
    for option, name in (("--queue", "queue"), ("--priority", "priority"), ("--time-limit", "time_limit_seconds")):
        take(option, remaining, name)
    return None if any(value != {} for value in remaining.values()) else options


def _take_length(remaining: Mapping[str, Any], options: list[tuple[str, str]]) -> bool:
    """Take `--sequence-length`, which is one for calibration and evaluation; return False where theirs differ."""
    calibration, evaluation = remaining.get("calibration", {}), remaining.get("evaluation", {})
    length = calibration.pop("sequence_length", None)
    measured = evaluation.pop("sequence_length", length)
    if "calibration" in remaining and "datasets" in evaluation and length != measured:
        return False
    if measured is not None:
        options.append(("--sequence-length", str(measured)))
    return measured is None or "datasets" in evaluation or length == measured


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _json_or_text(value: Any) -> str:
    """Return a value as the command parses it back: text stays plain only where it is not valid JSON."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)
