"""Parts of a job body whose ids come from this server's registries."""

from typing import Annotated

from pydantic import Field

from core.engine.exporters.registry import ADDED, OFFERED
from core.engine.quantization.registry import ROUNDINGS
from core.validation import RegisteredId
from secateur_wire import job_body as wire
from secateur_wire.requests import inherited


def _restored_forms() -> str:
    """Return the forms that the client restores, as words that continue a summary of each form."""
    described = [form for form, each in OFFERED.items() if each.summary]
    restored = [form for form, each in OFFERED.items() if each.replaces_weights]
    return "both" if restored == described and len(restored) == 2 else " and ".join(restored)


class Export(wire.Export):
    __doc__ = wire.Export.__doc__

    format: Annotated[str, RegisteredId(ADDED)] = Field(
        description=" ".join(each.summary for each in ADDED.values()),
    )
    types: list[Annotated[str, RegisteredId(dict.fromkeys(each for form in ADDED.values() for each in form.types))]] = (
        inherited(wire.Export, "types")
    )


class Quantization(wire.Quantization, frozen=True):
    __doc__ = wire.Quantization.__doc__

    rounding: Annotated[str, RegisteredId(ROUNDINGS)] | None = inherited(
        wire.Quantization,
        "rounding",
        description=f"{' '.join(each.summary for each in ROUNDINGS.values())} Unset: gptq if the job has a calibration "
        "text, or else nearest.",
    )


class Output(wire.Output):
    __doc__ = wire.Output.__doc__

    format: Annotated[str, RegisteredId(OFFERED)] = inherited(
        wire.Output,
        "format",
        description=f"{' '.join(each.summary for each in OFFERED.values() if each.summary)} "
        f"`secateur download --unpack` restores {_restored_forms()} bit by bit.",
    )
    quantization: Quantization | None = inherited(wire.Output, "quantization")
    exports: list[Export] = inherited(wire.Output, "exports")
