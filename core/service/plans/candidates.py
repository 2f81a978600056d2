"""Candidates: the jobs that may serve a goal, best first, before it is known which of them the model can be offered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.engine.options.patterns import STRUCTURED, UNSTRUCTURED
from secateur_wire.base import JsonObject
from secateur_wire.plans import Goal


@dataclass(frozen=True)
class Candidate:
    """A method with its pattern and parameters, and why it is taken. `sequences` are those to calibrate on.

    `usual` is the share to remove where nothing is known of the outcome.
    """

    method: str
    reason: str
    pattern: str = UNSTRUCTURED.text
    parameters: JsonObject = field(default_factory=dict)
    layout: str = "uniform"
    sequences: int = 32
    usual: float = 0.5


_ZEROS: Final = (
    Candidate(
        "frontier",
        "it loses least of all methods measured here, and needs neither labels nor training",
        parameters={"budget": "quick"},
    ),
    Candidate(
        "frontier",
        "it loses least of all methods measured here; every layer loses the same share, as gradients cannot be taken "
        "layer by layer in this architecture",
        parameters={"budget": "quick", "allocation": "uniform"},
    ),
    Candidate("sparsegpt", "it loses least of the methods that hold one model in memory"),
    Candidate("wanda", "it needs the least memory of the methods that look at activations"),
    Candidate("magnitude", "it needs no text and the least memory"),
)
_SMALLER: Final = (
    Candidate(
        "frontier",
        "of what removes whole channels, it loses least at a size; all layers get one shape, which every engine loads",
        pattern=STRUCTURED.text,
        parameters={"budget": "quick"},
        sequences=128,
        usual=0.2,
    ),
    Candidate(
        "frontier",
        "of what removes whole channels, it loses least at a size; the layers of this model differ in shape already",
        pattern=STRUCTURED.text,
        parameters={"budget": "quick"},
        layout="per_layer",
        sequences=128,
        usual=0.2,
    ),
    Candidate(
        "flap",
        "it removes channels by forward passes alone, which takes less memory",
        pattern=STRUCTURED.text,
        parameters={"attention": "none", "bias": False},
        sequences=128,
        usual=0.2,
    ),
    Candidate(
        "depth",
        "it removes whole layers, which leaves the shapes of the others alone",
        pattern=STRUCTURED.text,
        parameters={"budget": "quick"},
        usual=0.2,
    ),
)
_MEASURED: Final = (
    Candidate("sensitivity", "wanda is the cheapest method that looks at activations", parameters={"method": "wanda"}),
    Candidate("sensitivity", "magnitude can be measured on any model", parameters={"method": "magnitude"}),
)
_OF_LANGUAGE_MODELS: Final[Mapping[Goal, Sequence[Candidate]]] = {
    "speed": _SMALLER,
    "size": _ZEROS,
    "sparsity": _ZEROS,
    "sensitivity": _MEASURED,
}
_MAGNITUDE: Final = Candidate("magnitude", "image classifiers take it well up to about half of their weights")
_OF_CLASSIFIERS: Final[Mapping[Goal, Sequence[Candidate]]] = {
    "speed": (
        Candidate(
            "filter-l1",
            "it removes filters by their weights alone, and training afterwards wins back what that costs",
            pattern=STRUCTURED.text,
            usual=0.2,
        ),
    ),
    "size": (_MAGNITUDE,),
    "sparsity": (_MAGNITUDE,),
    "sensitivity": _MEASURED[1:],
}


def candidates_for(goal: Goal, task: str) -> Sequence[Candidate]:
    """Return the candidates for a goal and a model's task, best first."""
    return (_OF_LANGUAGE_MODELS if task == "language-model" else _OF_CLASSIFIERS)[goal]
