"""Frontier: its description and parameters."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field, model_validator

from core.engine.options.compensation import Compensation
from core.measurements.sentences import measured_losses
from core.methods.admm.info import ADMMParameters
from core.methods.frontier.own_text import OWN_TEXT, Budget
from core.methods.frontier.structured_info import STRUCTURED_VARIANT
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs


class FrontierParameters(ADMMParameters):
    """Parameters of `frontier`: those of ADMM, and a budget. Those that are unset follow from the budget. The
    allocation is `fisher`, unless a pattern n:m leaves no choice.
    """

    budget: Budget = Field(
        "quick",
        description="quick: about twice SparseGPT's time; a quarter of the calibration sequences are text that the "
        "model writes itself. thorough: at most about eight times; three times as many sequences, at most 96, are "
        "added of such text.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_budget(cls, given: Any) -> Any:
        preset = FRONTIER.get(given.get("budget", "quick")) if isinstance(given, dict) else None
        if preset is None:
            return given
        filled = {"iterations": preset.iterations, "allocation": "fisher"} | given
        return filled | {"compensation": given.get("compensation") or preset.compensation.model_copy()}

    def split_calibration(self, samples: int | None) -> tuple[int | None, int]:
        return OWN_TEXT[self.budget].split(samples)


@dataclass(frozen=True)
class Preset:
    """Default values of a budget of `frontier`."""

    compensation: Compensation
    iterations: int


FRONTIER: Final[dict[Budget, Preset]] = {
    "quick": Preset(Compensation(refit=0.5, ridge=0.1, conjugate_gradient=2), 8),
    "thorough": Preset(Compensation(refit=0.5, ridge=0.1, conjugate_gradient=20), 20),
}


INFO = MethodInfo(
    id="frontier",
    rank=60,
    title="Frontier",
    summary="ADMM with a sparsity for each layer, fitted to the dense model's outputs on your text and on its own.",
    description="Chooses weights as ADMM does. The dense model runs beside the pruned one: each layer is fitted so "
    "that, with the inputs it has in the pruned model, it gives what it gave before pruning. It is fitted again when "
    "the choice of weights is final. Layers in which weights matter less to the loss lose more. It calibrates on the "
    "text you name and on as much text that the model writes itself, so that quality on other texts is kept too. No "
    "training and no labels. The usual choice for a language model. "
    f"{measured_losses('frontier', 'zeros', 'unstructured')}",
    gains=ZEROS_OR_N_M,
    paper=None,
    task_families=("language-model",),
    patterns=("unstructured", "n:m", "structured"),
    variants={"structured": STRUCTURED_VARIANT},
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=FrontierParameters,
    removes="weights",
    reads="gram",
    offers=(
        PlanOffer(
            goals=("size",),
            place=5,
            reason="of what removes whole channels, it loses least at a size; zeros take room in such a file, "
            "removed parts take none",
            pattern="structured",
            parameters={"budget": "quick"},
            sequences=128,
            needs_files=True,
        ),
        PlanOffer(
            goals=("size", "sparsity"),
            place=10,
            reason="it loses least of all methods measured here, and needs neither labels nor training",
            parameters={"budget": "quick"},
        ),
        PlanOffer(
            goals=("size", "sparsity"),
            place=20,
            reason="it loses least of all methods measured here; every layer loses the same share, as gradients cannot "
            "be taken layer by layer in this architecture",
            parameters={"budget": "quick", "allocation": "uniform"},
        ),
        PlanOffer(
            goals=("speed",),
            place=10,
            reason="of what removes whole channels, it loses least at a size; all layers get one shape, which every "
            "engine loads",
            pattern="structured",
            parameters={"budget": "quick"},
            sequences=128,
        ),
        PlanOffer(
            goals=("speed",),
            place=20,
            reason="of what removes whole channels, it loses least at a size; the layers of this model differ in shape "
            "already",
            pattern="structured",
            parameters={"budget": "quick"},
            layout="per_layer",
            sequences=128,
        ),
    ),
)
