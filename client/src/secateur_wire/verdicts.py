"""Verdicts on pruned models: how much worse than the dense one each is, in words."""

from typing import Annotated, Literal

from secateur_wire.base import OneOf, WireModel

Band = Literal["as good as dense", "close to dense", "noticeably worse", "much worse", "unusable"]
"""Words for how a pruned model compares with the dense one, the best first."""


class Verdict(WireModel):
    """Verdict on a pruned model, by the worst of what was measured of its quality.

    `figure` is what it rests on, `on` the text, image set or task (null for the mean of several). With perplexity
    `ratio` is pruned over dense, null where the pruned one is no finite number; with accuracy `change` is pruned less
    dense. `within_noise`: the difference is one that the measurement cannot tell from none. `worse_than_random`:
    removing as much at random was measured, and did better; false where it did not, or was not measured. `words` and
    `reason` say all this to people.
    """

    band: Annotated[str, OneOf(Band)]
    within_noise: bool
    worse_than_random: bool
    figure: Annotated[str, OneOf(Literal["perplexity", "accuracy"])]
    on: str | None
    ratio: float | None
    change: float | None
    words: str
    reason: str
