"""Losses: the parts of a language model that a removal takes out, for what files of it can hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Losses:
    """Parts that a job takes out of a language model, or leaves behind in their place, as `biases`.

    `unlike_layers`: those that are left may differ in shape.
    """

    heads: bool = False
    layers: bool = False
    biases: bool = False
    unlike_layers: bool = False
