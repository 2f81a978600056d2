"""Options about how a job must end: its gates, and where summaries of its end are written."""

from pathlib import Path
from typing import Annotated

import typer

RatioOption = Annotated[float | None, typer.Option(help="Gate: the largest pruned/dense perplexity to accept.")]
DropOption = Annotated[
    float | None, typer.Option(help="Gate, of image classifiers: how much top-1 accuracy may fall, 0.01 being a point.")
]
TaskDropOption = Annotated[
    float | None, typer.Option(help="Gate: how much accuracy may fall on every task and in their mean.")
]
LatencyRatioOption = Annotated[float | None, typer.Option(help="Gate: the largest pruned/dense time to accept.")]
BytesOption = Annotated[int | None, typer.Option(help="Gate: the most bytes of weights, as they are stored.")]
BytesRatioOption = Annotated[
    float | None, typer.Option(help="Gate: the largest stored/dense bytes of weights to accept.")
]
ParametersOption = Annotated[int | None, typer.Option(help="Gate: the most parameters that are not zero.")]
ExportKlOption = Annotated[
    float | None,
    typer.Option(help="Gate: the largest mean KL divergence, in nats, of a file of --export from the artifact."),
]

SummaryOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write how the job ended as JSON.")]
MarkdownOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write how the job ended as Markdown, for a comment.")
]
JunitOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the gates as JUnit XML, a test case each.")
]
