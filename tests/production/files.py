"""What docker-compose.yml and the Dockerfile say, read for tests that run it without containers."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"


def compose() -> dict[str, Any]:
    """The file, merge keys resolved, variables not yet."""
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return parsed


def filled_in(text: str, variables: Mapping[str, str]) -> str:
    """Compose's interpolation: ${NAME:?} must be given, ${NAME:-default} need not."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if name in variables:
            return variables[name]
        if kind == "?":
            raise KeyError(f"{name} is needed")
        return default or ""

    return re.sub(r"\$\{(\w+)(?::([?-])([^}]*))?\}", value, text)


@dataclass(frozen=True)
class Image:
    """What a target of the Dockerfile sets, its own and what it builds upon."""

    environment: dict[str, str]
    command: list[str]
    healthcheck: list[str]
    user: str


def image(target: str) -> Image:
    stages: dict[str, tuple[str, list[str]]] = {}
    for instruction in _instructions():
        if instruction.startswith("FROM "):
            _, base, _, name = instruction.split()
            stages[name] = (base, [])
        else:
            stages[name][1].append(instruction)
    chain = []
    at = target
    while at in stages:
        at, own = stages[at]
        chain.append(own)
    made: dict[str, Any] = {"environment": {}, "command": [], "healthcheck": [], "user": "root"}
    for instruction in (each for own in reversed(chain) for each in own):
        keyword, _, rest = instruction.partition(" ")
        if keyword == "ENV":
            made["environment"] |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif keyword == "CMD":
            made["command"] = json.loads(rest)
        elif keyword == "HEALTHCHECK":
            made["healthcheck"] = json.loads(rest[rest.index("[") :])
        elif keyword == "USER":
            made["user"] = rest
    return Image(**made)


def _instructions() -> list[str]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]
