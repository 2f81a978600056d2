"""Parameters of the methods that remove filters of image classifiers."""

from typing import Annotated, Literal

from pydantic import Field

from core.engine.options.allocation import LayerSparsities
from core.engine.options.filters import FilterParameters


class FilterL1Parameters(FilterParameters):
    """Parameters of `filter-l1`."""

    selection: Literal["independent", "greedy"] = Field(
        "independent",
        description="independent: all filters are scored as they are. greedy: layer by layer, kernels that read "
        "filters removed before do not count.",
    )
    order: Literal["smallest", "random", "largest"] = Field(
        "smallest", description="Which filters of a layer go first. random and largest are the paper's comparison."
    )
    rates: Literal["uniform", "sensitivity"] | LayerSparsities = Field(
        "uniform",
        description="Share of the filters removed of each layer. uniform: the same. sensitivity: each as many as cost "
        "the same loss, from a scan of loss against rate with nothing else removed. A list: one rate per group of "
        "coupled layers, from the image on, scaled together to meet the sparsity; 0 leaves one alone.",
    )
    rounds: int = Field(1, ge=1, le=1000, description="Prune and retrain so many times, in equal parts.")
    retrain_steps: int = Field(
        0, ge=0, le=1_000_000, description="Training steps after each round; the job's recovery comes after the last."
    )


class FilterTaylorParameters(FilterParameters):
    """Parameters of `filter-taylor`."""

    ranking: Literal["taylor", "random", "minimum_weight", "activation", "obd", "oracle"] = Field(
        "taylor", description="The criterion; all but taylor are the paper's comparison. oracle measures every filter."
    )
    compare: bool = Field(
        False,
        description="Rank the dense model by all criteria and report Spearman's correlation of each with the oracle.",
    )
    filters_per_round: int | None = Field(
        None, ge=1, le=1_000_000, description="Unset: a fiftieth of those there are at first."
    )
    retrain_steps: int = Field(30, ge=0, le=1_000_000, description="Training steps between rounds.")
    flops_weight: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0,
        description="λ: a filter's score is lowered by it for each million operations that go with the filter. The "
        "paper: 0.001.",
    )
    flops_reduction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the operations to remove at least, besides the sparsity, which may then be 0.",
    )
