"""Frontier for a smaller model: its variant of the method's description, its parameters and its cost."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.heterogeneous import Layout
from core.engine.options.compensation import CutRefit
from core.engine.options.propagation import ForwardOptions
from core.engine.removals.widths.options import WidthOptions
from core.measurements.sentences import measured_losses
from core.methods.frontier.layer_drop import LAYER_DROP, most_layers
from core.methods.frontier.own_text import OWN_TEXT, Budget
from core.methods.method_info import SMALLER, Variant
from secateur_wire.errors import InvalidParameters
from secateur_wire.methods import Needs

STREAM_TOKENS = 2048
"""Largest number of tokens whose gradients in the residual stream are kept."""
_STATE_BYTES = 4


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
    gains=SMALLER,
    needs=Needs(calibration=True, gradients=True, training=False),
    parameters=StructuredFrontierParameters,
    removes="widths",
    reads="gram",
)
