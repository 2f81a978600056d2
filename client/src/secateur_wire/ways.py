"""Ways to run an artifact."""

from typing import Literal

from secateur_wire.base import WireModel


class WayToRun(WireModel):
    """Commands of a shell that run the artifact in one runtime, which needs these `packages` of Python's."""

    object: Literal["way_to_run"] = "way_to_run"
    runtime: str
    about: str
    packages: list[str]
    commands: str
