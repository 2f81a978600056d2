"""Losses: the parts of a language model that a removal takes out. Exporters check if a file format allows them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Losses:
    """Parts that a job takes out of a language model. With `biases` it leaves biases in their place.

    `different_layers` is True if the layers that are left may differ in shape.
    """

    heads: bool = False
    layers: bool = False
    biases: bool = False
    different_layers: bool = False
