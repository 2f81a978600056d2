"""`secateur summary`, and the summary files that `submit --wait` and `watch` write after the job has ended."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.identifiers import JobArgument
from secateur.cli.output import JsonOption, connect, explain, print_json
from secateur.client import Client
from secateur.errors import NotFound
from secateur.jobs import Job
from secateur.summary import Summary, summarise

SummaryOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write how the job ended as JSON.")]
MarkdownOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write how the job ended as Markdown, for a comment.")
]
JunitOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the gates as JUnit XML, one test case for each gate.")
]


@dataclass(frozen=True)
class SummaryFiles:
    """Files for summaries.

    Raises typer.BadParameter for a file that cannot be written, before the job begins.
    """

    summary: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None

    def __post_init__(self) -> None:
        for option, file in vars(self).items():
            if file is not None and (file.is_dir() or not file.parent.is_dir()):
                reason = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
                raise typer.BadParameter(f"--{option} {file}: {reason}; name a file to write")

    def __bool__(self) -> bool:
        return any(file is not None for file in vars(self).values())

    def write(self, summary: Summary) -> None:
        if self.summary is not None:
            self.summary.write_text(json.dumps(summary.document(), ensure_ascii=False, indent=2) + "\n", "utf-8")
        if self.markdown is not None:
            self.markdown.write_text(summary.markdown(), "utf-8")
        if self.junit is not None:
            self.junit.write_text(summary.junit(), "utf-8")

    def write_for(self, client: Client, job: Job) -> None:
        if self:
            self.write(summary_of(client, job))


def summary(
    job_id: JobArgument,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code",
            help="Exit with the same code as `watch`: 0 succeeded, 1 failed or unfinished, 3 gate missed.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sum up how a job ended: its figures and gates, as Markdown or with --json as JSON."""
    files = SummaryFiles(markdown=markdown, junit=junit)
    with connect() as client:
        job_summary = summary_of(client, client.job(job_id))
    files.write(job_summary)
    if as_json:
        print_json(job_summary.document())
    else:
        print(job_summary.markdown(), end="")
    if exit_code:
        if job_summary.outcome == "unfinished":
            explain(f"{job_id} has not ended, it is {job_summary.job.status}")
        raise typer.Exit(job_summary.exit_code)


def summary_of(client: Client, job: Job) -> Summary:
    """Return the summary of a job, with its report if it has one."""
    try:
        report = client.report(job.id)
    except NotFound:
        report = None
    return summarise(job, report, url=client.url)
