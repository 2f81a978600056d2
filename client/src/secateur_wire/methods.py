"""Catalogue of methods."""

from typing import Literal

from pydantic import Field

from secateur_wire.base import JsonObject, Page, WireModel


class Paper(WireModel):
    """Paper that a method comes from."""

    title: str
    authors: str
    year: int
    url: str


class Needs(WireModel):
    """Needs of a method besides the weights."""

    calibration: bool
    gradients: bool
    training: bool


class MethodVariant(WireModel):
    """A method with a pattern of one family, where it differs from the method with other patterns."""

    description: str
    gains: str
    needs: Needs
    parameters: JsonObject


class Method(WireModel):
    """A method: its paper, its needs, and the JSON schema of its parameters.

    `description` is a paragraph that helps to choose, `gains` the benefit on hardware. `variants` replaces these four
    fields for patterns with which they differ.
    """

    id: str
    title: str
    summary: str = ""
    description: str = ""
    gains: str = ""
    paper: Paper | None
    task_families: list[str]
    patterns: list[str]
    needs: Needs
    parameters: JsonObject
    variants: dict[str, MethodVariant] = Field(default_factory=dict)


class MethodList(Page[Method]):
    has_more: Literal[False] = False
    next_after: None = None
