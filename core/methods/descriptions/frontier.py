"""Frontier, for zeros and for a smaller model: its description and parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.options.axes import Compensation, CutRefit, ForwardOptions
from core.engine.removals.layers import most_removable_layers
from core.engine.removals.widths import WidthOptions
from core.measurements.reader import measured_losses
from core.methods.descriptions.zeros import ADMMParameters
from core.methods.method_info import GRADIENTS, MethodInfo, PlanOffer, Variant
from secateur_wire.errors import InvalidParameters
from secateur_wire.job_body import Layout

Budget: TypeAlias = Literal["quick", "thorough"]


@dataclass(frozen=True)
class OwnText:
    """Generated sequences: a `share` of the calibration sequences, at most `most`.

    They replace other sequences where `replaces` is set; otherwise they are added.
    """

    share: float
    replaces: bool
    most: int

    def split(self, samples: int | None) -> tuple[int | None, int]:
        """Return the numbers of sequences from the text and of generated sequences, as `split_calibration` does."""
        if samples is None:
            return None, self.most
        generated = min(int(self.share * samples), self.most)
        return (samples - generated if self.replaces else samples), generated


OWN_TEXT: Final[dict[Budget, OwnText]] = {
    "quick": OwnText(share=0.25, replaces=True, most=64),
    "thorough": OwnText(share=3, replaces=False, most=96),
}

_ROUNDING = 0.5
"""Tolerance in parameters: the number of parameters to remove comes from a ratio, which is a float."""


@dataclass(frozen=True)
class LayerDrop:
    """Settings of the search for whole layers to drop in place of channels.

    Layers are dropped only if at least `from_share` of the blocks' parameters is removed. The dropped layers make up
    one of `shares` of the removal. Each trial is fitted on the share `fitted` of the calibration tokens, and measured
    on `seen` other tokens.
    """

    from_share: float
    shares: tuple[float, ...]
    fitted: float
    seen: int

    @property
    def most_trials(self) -> int:
        """Largest number of models that are tried."""
        return most_trials(1 + len(self.shares))

    @property
    def weight_reads(self) -> int:
        """Largest number of times that the model's weights are read: by the dense model, and by each trial."""
        return 1 + self.most_trials

    def fitted_tokens(self, calibration: int) -> int:
        """Return the approximate number of tokens that a trial is fitted on."""
        return min(max(round(self.fitted * calibration), 2048), 16384, calibration)

    def numbers(self, description: ModelDescription, sparsity: float) -> list[int]:
        """Return the numbers of dropped layers to try, beginning with 0."""
        most = most_layers(description, sparsity)
        removed = sparsity * description.parameters
        if removed < self.from_share * require_structure(description).parameters or not most:
            return [0]
        worth = _equivalent_layers(description, sparsity)
        return [0, *sorted({min(max(1, round(share * worth)), most) for share in self.shares})]


LAYER_DROP: Final[dict[Budget, LayerDrop]] = {
    "quick": LayerDrop(from_share=0.1, shares=(0.25, 0.5, 0.75, 1.0), fitted=0.125, seen=2048),
    "thorough": LayerDrop(from_share=0.05, shares=(0.15, 0.3, 0.45, 0.6, 0.8, 1.0), fitted=0.25, seen=8192),
}


def find_local_minimum(places: int, value: Callable[[int], float]) -> int:
    """Return the position of a local minimum, which is the global one if the values first fall and then rise.

    The search starts with the two values in the middle and follows the direction in which they fall until they rise.
    """
    place = (places - 1) // 2
    step = 1 if place + 1 < places and value(place + 1) < value(place) else -1
    while 0 <= place + step < places and value(place + step) < value(place):
        place += step
    return place


def most_trials(places: int) -> int:
    """Return the largest number of values that `find_local_minimum` asks for."""
    return min((places - 1) // 2 + 2, places)


def most_layers(description: ModelDescription, sparsity: float) -> int:
    """Return the largest number of whole layers that any choice can drop without exceeding `sparsity` of the model."""
    if "layers" in description.known_as.refused:
        return 0
    largest = sorted((each.parameters for each in require_structure(description).layers), reverse=True)
    left, number = sparsity * description.parameters + _ROUNDING, 0
    while number < most_removable_layers(description) and largest[number] <= left:
        left -= largest[number]
        number += 1
    return number


def _equivalent_layers(description: ModelDescription, sparsity: float) -> float:
    """Return the number of layers of average size that have as many parameters as are removed."""
    return sparsity * description.parameters * description.layers / require_structure(description).parameters


STREAM_TOKENS = 2048
"""Largest number of tokens whose gradients in the residual stream are kept."""


def measured_sequences(length: int) -> int:
    """Return the number of sequences of a length whose gradients are computed: 4 to 8, evenly spaced among all."""
    return min(max(4, STREAM_TOKENS // length), 8)


class StructuredFrontierParameters(WidthOptions, ForwardOptions):
    """Parameters of `frontier` for the removal of heads and channels."""

    cuts_behind_norms: ClassVar[bool] = True
    cuts_experts: ClassVar[bool] = True

    budget: Budget = Field(
        "quick",
        description="quick: about three times SparseGPT's time, of which a third is for trials of whole layers; a "
        "quarter of the calibration sequences are text that the model writes itself. thorough: at most eight "
        "times; three times as many sequences, at most 96, are added of such text.",
    )
    attention: Literal["kv_groups", "none"] = Field(
        "none",
        description="none: attention heads stay, because removing them costs more than removing channels. kv_groups: a "
        "key/value head is removed together with the query heads that share it.",
    )
    drop_layers: Literal["auto"] | Annotated[int, Field(ge=0, le=4096)] = Field(
        "auto",
        description="Number of whole layers to remove; channels make up the rest. auto: tries several numbers on "
        "calibration tokens, and takes the one whose model, of the same size, predicts most like the dense one. quick: "
        f"at most {LAYER_DROP['quick'].most_trials} trials, if at least {LAYER_DROP['quick'].from_share:.0%} of the "
        f"blocks' parameters go, else no layers. thorough: {LAYER_DROP['thorough'].most_trials} trials, from "
        f"{LAYER_DROP['thorough'].from_share:.0%} on.",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Strength of the penalty in the least squares that choose channels, as a share of the mean of the "
        "squared inputs.",
    )
    ridge: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Strength of the penalty (ridge) in the fit to the dense model's outputs, as a share of the mean "
        "of the squared inputs.",
    )
    refit: float = Field(
        0.5,
        ge=0,
        le=1,
        description="α, 0 to 1. The fit aims at a mix of two outputs: α of the dense model's output, and 1 − α of "
        "what the remaining weights give now. Experts are not fitted this way.",
    )
    metric: bool = Field(
        True,
        description="Weigh the errors of each output by what they do to the loss, from gradients of a few calibration "
        "sequences. Otherwise all errors count the same.",
    )

    @model_validator(mode="after")
    def _fits_once(self) -> Self:
        if self.compensation is not None and self.compensation.refits:
            raise ValueError(
                "frontier fits the remaining weights itself: leave out compensation, and set its ridge with "
                "parameters.ridge"
            )
        return self

    @property
    def default_refit(self) -> CutRefit | None:
        return None

    def layer_numbers(self, description: ModelDescription, sparsity: float) -> list[int]:
        """Return the numbers of dropped layers to try, or the number in the request."""
        if self.drop_layers != "auto":
            return [self.drop_layers]
        return LAYER_DROP[self.budget].numbers(description, sparsity)

    def check_dropped_layers(self, description: ModelDescription, ratio: float, free: int) -> None:
        most = min(most_layers(description, ratio), free - 1)
        if self.drop_layers != "auto" and self.drop_layers > most:
            why = description.known_as.refused.get("layers")
            if why is not None:
                raise InvalidParameters(
                    f"parameters.drop_layers: {description.architecture} cannot lose layers: {why}; use 0",
                    param="parameters.drop_layers",
                )
            raise InvalidParameters(
                f"parameters.drop_layers: at sparsity {ratio:g} at most {most} whole layers can go, not "
                f"{self.drop_layers}, which have more parameters, or leave too few layers for it to run",
                param="parameters.drop_layers",
            )

    def ranks_layers(self, layout: Layout) -> bool:
        return layout == "per_layer"

    @property
    def chooses_by_cost(self) -> bool:
        return True

    def split_calibration(self, samples: int | None) -> tuple[int | None, int]:
        return OWN_TEXT[self.budget].split(samples)


STRUCTURED_VARIANT = Variant(
    description="Makes the feed-forward network (FFN) of every layer narrower. It removes the channels whose loss the "
    "others can best make up for, by a second-order estimate that also counts what an error of the layer "
    "does to the model's loss. Then it fits the rest to the outputs before pruning. If much has to go, whole "
    "layers go in place of some channels, where trials show that this costs less. Layers may keep different "
    "numbers of channels. It calibrates on the text you name and on some that the model writes itself. No "
    "training and no labels. The usual choice for a smaller and faster language model. "
    f"{measured_losses('frontier', 'structured', 'structured')}",
    needs=GRADIENTS,
    parameters=StructuredFrontierParameters,
    removes="widths",
    reads="gram",
)


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
        preset = PRESETS.get(given.get("budget", "quick")) if isinstance(given, dict) else None
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


PRESETS: Final[dict[Budget, Preset]] = {
    "quick": Preset(Compensation(refit=0.5, ridge=0.1, conjugate_gradient=2), 8),
    "thorough": Preset(Compensation(refit=0.5, ridge=0.1, conjugate_gradient=20), 20),
}


FRONTIER = MethodInfo(
    id="frontier",
    title="Frontier",
    summary="ADMM with a sparsity for each layer, fitted to the dense model's outputs on your text and on its own.",
    description="Chooses weights as ADMM does. The dense model runs beside the pruned one: each layer is fitted so "
    "that, with the inputs it has in the pruned model, it gives what it gave before pruning. It is fitted again when "
    "the choice of weights is final. Layers in which weights matter less to the loss lose more. It calibrates on the "
    "text you name and on as much text that the model writes itself, so that quality on other texts is kept too. No "
    "training and no labels. The usual choice for a language model. "
    f"{measured_losses('frontier', 'zeros', 'unstructured')}",
    patterns=("unstructured", "n:m", "structured"),
    variants={"structured": STRUCTURED_VARIANT},
    parameters=FrontierParameters,
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
