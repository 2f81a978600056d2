"""The catalogue of methods."""

from typing import Literal

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


class Method(WireModel):
    """A method: where it comes from, what it needs, and the JSON schema of its parameters. `description` is a paragraph
    for whoever has to choose, `gains` what hardware makes of the result.
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


class MethodList(Page[Method]):
    has_more: Literal[False] = False
    next_after: None = None
