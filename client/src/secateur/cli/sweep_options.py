"""The options of `secateur sweep run`, and the sweep they say."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import typer
from pydantic import JsonValue

from secateur.cli.job_options import JobOptions


@dataclass(frozen=True)
class SweepOptions:
    """A sweep as options describe it. What is None is left to the server's defaults."""

    job: JobOptions
    methods: list[str] = field(default_factory=list)
    sparsities: list[float] = field(default_factory=list)
    grid: list[str] = field(default_factory=list)
    search: str | None = None
    subject_to: list[str] = field(default_factory=list)
    probe_samples: int | None = None
    max_jobs: int | None = None
    name: str | None = None
    max_concurrent: int | None = None
    skip_invalid: bool = False

    def body(self) -> dict[str, Any]:
        """Return the sweep's body. Raises typer.BadParameter for options that make no valid body."""
        if not self.job.model:
            raise typer.BadParameter("name the model with --model, or give a whole sweep as FILE")
        if not self.methods:
            raise typer.BadParameter("name a method with --method; `secateur methods` lists them")
        job = replace(self.job, method=self.methods[0]).body()
        del job["method"]  # it varies
        body: dict[str, Any] = {"job": job} | self._what_varies()
        for name in ("name", "max_concurrent"):
            if getattr(self, name) is not None:
                body[name] = getattr(self, name)
        return body | ({"skip_invalid": True} if self.skip_invalid else {})

    def _what_varies(self) -> dict[str, Any]:
        if self.search is None:
            if self.subject_to or self.probe_samples is not None or self.max_jobs is not None:
                raise typer.BadParameter("--subject-to, --probe-samples and --max-jobs need --search OBJECTIVE")
            grid: dict[str, Any] = {"method": self.methods}
            if self.sparsities:
                grid["sparsity"] = self.sparsities
            return {"grid": grid | dict(_axis(text) for text in self.grid)}
        if self.grid:
            raise typer.BadParameter("--grid: a search chooses its own points; set one value in a FILE instead")
        search: dict[str, Any] = {
            "objective": self.search,
            "subject_to": dict(_limit(text) for text in self.subject_to),
            "methods": self.methods,
        }
        if self.sparsities:
            search["sparsities"] = self.sparsities
        if self.max_jobs is not None:
            search["max_jobs"] = self.max_jobs
        if self.probe_samples is not None:
            search["probe"] = {"samples": self.probe_samples}
        return {"search": search}


def _axis(text: str) -> tuple[str, list[JsonValue]]:
    path, separator, written = text.partition("=")
    try:
        values: JsonValue = json.loads(written) if separator and path else None
    except ValueError:
        values = None
    if not isinstance(values, list) or not values:
        raise typer.BadParameter(f"--grid {text!r}: write PATH=LIST, such as parameters.block_size=[64, 128]")
    return path, values


def _limit(text: str) -> tuple[str, float]:
    name, separator, written = text.partition("=")
    try:
        return name, float(written if separator else "")
    except ValueError:
        raise typer.BadParameter(
            f"--subject-to {text!r}: write LIMIT=VALUE, such as max_perplexity_ratio=1.1"
        ) from None
