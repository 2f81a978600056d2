"""Options of methods that remove whole experts."""

from pydantic import Field

from core.engine.options.axes import CutRefit, MethodParameters, RefitOptions

_DEFAULT_REFIT = CutRefit(refit="auto", ridge=0.1)


class ExpertOptions(MethodParameters, RefitOptions):
    """Options of methods that remove whole experts, the same number from each layer."""

    compensation: CutRefit | None = Field(
        None,
        description="Refit: fit the last matrices of the remaining experts, and the router, to the outputs of the "
        "dense model's layers, "
        'without training. {"refit": 0}: no refit, as in the papers. Unset: '
        f'{{"refit": "{_DEFAULT_REFIT.refit}", "ridge": {_DEFAULT_REFIT.ridge}}}.',
    )

    @property
    def default_refit(self) -> CutRefit | None:
        return _DEFAULT_REFIT
