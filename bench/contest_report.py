"""The contest as Markdown: figures of every cell, and Secateur's as a share of llm-compressor's."""

from dataclasses import dataclass

from bench.contest import Contender, Figures, Job
from bench.machine import products
from bench.page import table
from core.engine.architectures.description import ModelDescription

MIB = 2**20
TEXT = "evaluation"
"""The one text this contest is judged by."""


@dataclass(frozen=True)
class Contest:
    """All that was found. `rates` are matrix-product operations per second by dtype, `tokens` those calibrated on."""

    machine: str
    releases: list[str]
    model: ModelDescription
    tokens: int
    rates: dict[str, float]
    dense: float
    cells: list[tuple[Job, Contender, Figures | None]]

    def of(self, job: Job, title: str) -> Figures | None:
        found = (figures for each, contender, figures in self.cells if each == job and contender.title == title)
        return next(found, None)


def report(contest: Contest, ours: list[str], theirs: str) -> str:
    """The section of the page."""
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in contest.rates.items())
    facts = [
        f"- {contest.machine}; matrix products: {rates}.",
        *(f"- {release}." for release in contest.releases),
        f"- {contest.model.parameters:,} parameters, {contest.model.dtype}; {contest.tokens:,} calibration tokens; "
        f"dense perplexity {contest.dense:.2f}.",
    ]
    measured = sorted(figures.measured for _, _, figures in contest.cells if figures)
    if measured:
        facts.append(f"- Measured from {measured[0]} to {measured[-1]}.")
    header = ["job", "with", "whole s", "cpu s", "pruning s", "floor s", "peak MiB", "sparsity", "perplexity"]
    rows = [_row(contest, job, contender, figures) for job, contender, figures in contest.cells]
    jobs = list(dict.fromkeys(job for job, _, _ in contest.cells))
    ratios = [_ratio(contest, job, title, theirs) for job in jobs for title in ours if contest.of(job, title)]
    return "\n\n".join(
        [
            "\n".join(facts),
            table(header, rows),
            f"As a share of {theirs}'s:",
            table(["job", "with", "whole time", "cpu time", "pruning time", "peak memory", "perplexity"], ratios),
        ]
    )


def _row(contest: Contest, job: Job, contender: Contender, figures: Figures | None) -> list[str]:
    if figures is None:
        return [job.title, contender.title, "not offered", *[""] * 6]
    needed = products(contest.model, job.method, contest.tokens)
    return [
        job.title,
        contender.title,
        f"{figures.seconds:.1f}",
        f"{figures.processor_seconds:.1f}",
        f"{figures.prune_seconds:.1f}",
        f"{needed.seconds(contest.rates, figures.forward_dtype):.1f}" if needed else "0",
        f"{figures.peak_bytes / MIB:,.0f}",
        f"{figures.sparsity:.4f}",
        f"{figures.perplexity[TEXT]:,.2f}",
    ]


def _ratio(contest: Contest, job: Job, title: str, theirs: str) -> list[str]:
    mine, other = contest.of(job, title), contest.of(job, theirs)
    if mine is None or other is None:
        return [job.title, title, *["–"] * 5]
    pairs = [
        (mine.seconds, other.seconds),
        (mine.processor_seconds, other.processor_seconds),
        (mine.prune_seconds, other.prune_seconds),
        (mine.peak_bytes, other.peak_bytes),
        (mine.perplexity[TEXT], other.perplexity[TEXT]),
    ]
    return [job.title, title, *(f"{one / two:.2f}" for one, two in pairs)]
