"""Outputs: a request's form of artifact, checked against the model, with the defaults of the form."""

from core.engine.architectures.describe import Description
from core.engine.exporters.registry import OFFERED
from core.errors import InvalidRequest
from core.pipeline.recipes.parts import Output


def resolve_output(output: Output, description: Description, pattern: str) -> Output:
    """Return the output with its form's defaults; raises InvalidRequest for what does not fit the form or the model."""
    exporter = OFFERED[output.format]
    if exporter.default_compression is None and output.compression is not None:
        compressed = " and ".join(repr(form) for form, each in OFFERED.items() if each.default_compression is not None)
        raise InvalidRequest(
            f"output.compression belongs to format {compressed}, not to {output.format!r}: leave it out",
            param="output.compression",
        )
    exporter.check(description, pattern)
    if exporter.default_compression is None:
        return output
    return output.model_copy(update={"compression": output.compression or exporter.default_compression})
