"""`secateur inspect`: describes a model, or checks a job body without submitting it."""

from pydantic import JsonValue

from secateur.cli.options import JobOptions, job_body, takes_job_options
from secateur.cli.output import JsonOption, WaitPrinter, connect, print_json, print_pairs, print_table
from secateur.cli.submit import ModelArgument
from secateur.formatting import count
from secateur_wire.jobs import Estimate, Inspection
from secateur_wire.progress import between, seconds_range
from secateur_wire.sizes import size


@takes_job_options()
def inspect(model: ModelArgument, job: JobOptions, as_json: JsonOption = False) -> None:
    """Show a model and the methods that fit it; with options of a job, what that job would need. Submit nothing.

    A method, and a calibration that the method needs, are assumed where none is named.
    """
    body = job_body(job)
    with connect() as client:
        inspection = client.inspect(model, on_wait=WaitPrinter(), **body)
    if as_json:
        print_json(inspection)
    else:
        _print_inspection(inspection)


def _shape(inspection: Inspection) -> str:
    if inspection.classes is not None:
        return f"{inspection.layers} convolutions and linear layers, {inspection.classes} classes"
    return f"{inspection.layers} layers, hidden size {inspection.hidden_size}, vocabulary {inspection.vocabulary_size}"


def _print_inspection(inspection: Inspection) -> None:
    print_pairs(
        [
            ("model", inspection.model),
            ("architecture", f"{inspection.architecture} ({inspection.family}), {inspection.dtype}"),
            ("shape", _shape(inspection)),
            ("context", None if inspection.context_length is None else f"{inspection.context_length} tokens"),
            (
                "parameters",
                f"{count(inspection.parameters)}, of which {count(inspection.prunable_parameters)} can be pruned",
            ),
            ("size", size(inspection.bytes)),
        ]
    )
    print_table(
        ("method", "fits", "why not"),
        [(fit.method, "yes" if fit.fits else "no", fit.reason or "") for fit in inspection.methods],
    )
    if inspection.estimate is not None:
        print_pairs(
            [
                ("the job", "would be taken" if not inspection.assumed else "would be taken, with the assumed values"),
                *(("assumed", each) for each in inspection.assumed),
                ("sparsity", _meant(inspection.job)),
                ("channels left", _rounded(inspection.job)),
                *_artifact_size(inspection),
                ("peak memory, about", size(inspection.estimate.peak_memory_bytes)),
                ("disk, about", size(inspection.estimate.disk_bytes)),
                ("time", _time(inspection.estimate)),
                *(("warning", each) for each in inspection.estimate.warnings),
            ]
        )


def _artifact_size(inspection: Inspection) -> list[tuple[str, str | None]]:
    if inspection.artifact is None:
        return []
    return [
        ("parameters left, about", count(inspection.artifact.parameters)),
        ("size of the artifact, about", size(inspection.artifact.bytes)),
    ]


def _meant(job: dict[str, JsonValue] | None) -> str | None:
    """Return a sentence about the sparsity that a job's target resolves to."""
    if job is None or job.get("target") is None:
        return None
    sparsity = job.get("sparsity")
    return f"{sparsity}, by the target" if sparsity is not None else "the worker searches for it"


def _rounded(job: dict[str, JsonValue] | None) -> str | None:
    """Return a sentence about the multiple to which a job rounds its number of channels."""
    parameters = (job or {}).get("parameters")
    multiple = parameters.get("round_to") if isinstance(parameters, dict) else None
    return None if multiple is None else f"a multiple of {multiple} in each layer"


def _time(estimate: Estimate) -> str | None:
    if estimate.seconds is None:
        return None
    return between(*seconds_range(estimate.seconds, estimate.basis.seconds_deviation))
