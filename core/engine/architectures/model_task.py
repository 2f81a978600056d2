"""Tasks of models: the facts that differ between language models and image classifiers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal


@dataclass(frozen=True)
class ModelTask:
    """Facts of all models of a task.

    `models` is their name in the plural. Their loss is a mean over many of `example`, reported beside `quality`. Jobs
    measure them on `texts`. With `has_blocks` several linear layers lie in each decoder block. `inapplicable` has the
    fields of a request that do not apply to such models, each with the error message.
    """

    models: str
    example: str
    quality: Literal["perplexity", "accuracy"]
    texts: str
    has_blocks: bool
    inapplicable: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_perplexity(self) -> bool:
        return self.quality == "perplexity"

    @property
    def is_traced(self) -> bool:
        """Return whether a worker traces such a model once it is registered, since no block tells its layers' order."""
        return not self.has_blocks


MODEL_TASKS: Final[Mapping[str, ModelTask]] = {
    "language-model": ModelTask(
        models="language models",
        example="a token",
        quality="perplexity",
        texts="a text",
        has_blocks=True,
        inapplicable={
            "parameters.mode": "parameters.mode: 'exact' is for image classifiers, whose derivatives of single "
            "images it takes: use 'layer_wise'",
        },
    ),
    "image-classification": ModelTask(
        models="image classifiers",
        example="an image",
        quality="accuracy",
        texts="images",
        has_blocks=False,
        inapplicable={
            "output.layout": "output.layout belongs to language models, an image classifier's filters go layer by "
            "layer: leave it out",
            "target": "target is for language models: say as sparsity how much of an image classifier is to go",
            "parameters.include_lm_head": "parameters.include_lm_head: an image classifier's last layer is prunable "
            "like any other: leave it out",
            "parameters.compensation": "parameters.compensation: fits the linear layers of language models: leave it "
            "out for an image classifier",
        },
    ),
}
"""The facts of each task, by its name in descriptions."""
