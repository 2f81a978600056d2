"""Summary of a job's result, for pipelines: JSON, Markdown for a comment, JUnit XML for a test report.

job = client.wait(job_id)
summary = summarise(job, client.report(job_id), url=client.url)
Path("summary.md").write_text(summary.markdown())
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from pydantic import JsonValue

from secateur.formatting import number, percent, printable
from secateur.jobs import Job
from secateur.metrics_table import Figure, figures
from secateur_wire.jobs import Verdict
from secateur_wire.metrics import with_noise
from secateur_wire.reports import GateResult, Report

Outcome = Literal["passed", "gate_missed", "failed", "cancelled", "unfinished"]

EXIT_CODES: Final[Mapping[Outcome, int]] = {"passed": 0, "gate_missed": 3, "failed": 1, "cancelled": 1, "unfinished": 1}
"""Exit codes of every command that reports a job's result; 2 is a wrong call."""

_JOB_FIELDS: Final = {
    *("id", "status", "error", "model", "model_revision", "method", "pattern", "sparsity", "target", "metadata"),
    *("attempt", "created_at", "started_at", "finished_at"),
}
_MARKS: Final[Mapping[bool | None, str]] = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True)
class Summary:
    """Result of a job: its figures, and every gate with its limit and figure. `links` point to the server."""

    job: Job
    outcome: Outcome
    figures: list[Figure]
    gates: list[GateResult]
    links: dict[str, str]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def verdict(self) -> Verdict | None:
        """Return the comparison with the dense model; None where it was not measured, or the job is not over."""
        return None if self.outcome == "unfinished" else self.job.verdict

    def document(self) -> dict[str, JsonValue]:
        """Return the summary as a JSON document."""
        job = self.job.model_dump(mode="json", include=_JOB_FIELDS)
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "job": job,
            "verdict": None if self.verdict is None else self.verdict.model_dump(mode="json"),
            "figures": [figure.document() for figure in self.figures],
            "gates": [gate.model_dump(mode="json") for gate in self.gates],
            "links": dict(self.links),
        }

    def markdown(self) -> str:
        """Render the summary, short enough for a comment on a pull request: a line, two tables, a link."""
        mark = {"passed": "✓", "unfinished": "…"}.get(self.outcome, "✗")
        lines = [f"### {mark} {_plain(self._what())}: {_plain(self._end())}", ""]
        if self.verdict is not None:
            lines += [f"**{self.verdict.words.capitalize()}**: {_plain(self.verdict.reason)}.", ""]
        if self.figures:
            lines += ["| | dense | pruned | ratio |", "|---|--:|--:|--:|"]
            lines += [f"| {' | '.join(map(_plain, figure.row))} |" for figure in self.figures]
            lines.append("")
        if self.gates:
            lines += ["| gate | limit | figure | kept |", "|---|--:|--:|:-:|"]
            lines += [
                f"| {_plain(gate.label)} | {number(gate.limit)} | {_reached(gate)} | {_MARKS[gate.kept]} |"
                for gate in self.gates
            ]
            lines.append("")
        place = self.links.get("page")
        lines.append(f"[{self.job.id}]({place})" if place else f"`{self.job.id}`")
        return "\n".join(lines) + "\n"

    def junit(self) -> str:
        """Render one test case for each gate.

        A job without gates, or that ended before they were measured, is a single test case.
        """
        cases = [self._case(gate) for gate in self.gates]
        if not cases or self.outcome in ("failed", "cancelled", "unfinished"):
            case = TestCase("job", f"secateur.{self.job.method}")
            if self.outcome != "passed":
                code = self.job.error.code if self.job.error else self.job.status
                case.result = [Error(printable(self._end()), code)]
            cases.append(case)
        suite = TestSuite(f"secateur {self.job.id}")
        # Before the cases: the schemas of the format require this order.
        for name, value in self._properties().items():
            suite.add_property(printable(name), printable(value))
        suite.add_testcases(cases)
        seconds = self.job.metrics.seconds if self.job.metrics else None
        suite.time = (seconds.total if seconds else None) or 0
        xml = JUnitXml()
        xml.add_testsuite(suite)
        text: bytes = xml.tostring()
        return text.decode()

    def _properties(self) -> dict[str, str]:
        job = self.job
        properties = {
            "job": job.id,
            "status": job.status,
            "model": job.model,
            "method": job.method,
            "outcome": self.outcome,
        }
        properties |= {f"metadata.{name}": value for name, value in job.metadata.items()}
        properties |= {f"link.{name}": place for name, place in self.links.items()}
        if self.verdict is not None:
            properties["verdict"] = self.verdict.words
        for figure in self.figures:
            properties |= {f"{figure.label}, dense": str(figure.dense), f"{figure.label}, pruned": str(figure.pruned)}
        return properties

    def _case(self, gate: GateResult) -> TestCase:
        case = TestCase(printable(gate.label), "secateur.gates")
        if gate.kept is None:
            case.result = [Skipped("not measured: the job ended before")]
        elif not gate.kept:
            case.result = [Failure(printable(gate.message), "gate_missed")]
        return case

    def _what(self) -> str:
        job = self.job
        cut = percent(job.sparsity) if job.sparsity is not None else None
        return f"{job.model}, {' '.join(part for part in (job.method, job.pattern, cut) if part)}"

    def _end(self) -> str:
        missed = sum(gate.kept is False for gate in self.gates)
        match self.outcome:
            case "passed":
                return f"succeeded, {_gates(len(self.gates))} kept" if self.gates else "succeeded"
            case "gate_missed":
                return f"{missed} of {_gates(len(self.gates))} missed" if missed else "gate missed"
            case "failed" if self.job.error is not None:
                return f"failed: {self.job.error.message} ({self.job.error.code})"
            case "unfinished":
                if self.job.waiting_reason is not None:
                    return f"still waiting: {self.job.waiting_reason}"
                return {"queued": "still waiting", "running": "still running"}.get(self.job.status, "being cancelled")
            case _:
                return self.job.status


def summarise(job: Job, report: Report | None = None, *, url: str | None = None) -> Summary:
    """Return the summary of a job and its report, None where it has none. `url` is the server's, for the links."""
    links = {}
    if url is not None:
        calls = f"{url}/v1/jobs/{job.id}"
        links = {"page": f"{url}/portal/jobs/{job.id}", "job": calls, "report": f"{calls}/report"}
        links |= {"artifacts": f"{calls}/artifacts"}
    end = outcome(job)
    is_over = end != "unfinished"  # Otherwise they come from an attempt that ended before.
    measured = figures(job.metrics) if job.metrics is not None and is_over else []
    rows = report.gates.rows if report is not None and report.gates is not None else []
    known = rows if rows and end in ("passed", "gate_missed") else _from_limits(job, end)
    return Summary(job, end, measured, known, links)


def outcome(job: Job) -> Outcome:
    if not job.finished:
        return "unfinished"
    if job.status == "succeeded":
        return "passed"
    if job.status == "cancelled":
        return "cancelled"
    return "gate_missed" if job.missed_gate else "failed"


def exit_code(job: Job) -> int:
    """Return the exit code of a command for a job's result."""
    return EXIT_CODES[outcome(job)]


def _from_limits(job: Job, end: Outcome) -> list[GateResult]:
    """Return the gates as requested, where no report has their figures."""
    param = job.error.param if job.error and end == "gate_missed" else None
    return [
        GateResult(
            gate=name,
            limit=limit,
            kept=True if end == "passed" else False if param == f"gates.{name}" else None,
            message=job.error.message if job.error and param == f"gates.{name}" else "",
        )
        for name, limit in job.gates.items()
        if limit is not None
    ]


def _reached(gate: GateResult) -> str:
    margin = gate.margin if gate.margin and gate.figure is not None else None
    return f"{with_noise(number(gate.figure), margin)}{', unproven' if gate.unproven else ''}"


def _gates(count: int) -> str:
    return "1 gate" if count == 1 else f"{count} gates"


def _plain(text: str) -> str:
    """Escape foreign text for Markdown: it is on one line, and has no markup."""
    return re.sub(r"([\\`*_\[\]<>|~#@])", r"\\\1", " ".join(printable(text).split()))
