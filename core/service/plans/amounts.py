"""Amounts: the sparsity of a job for a share of a goal, and the range of possible amounts."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.engine.architectures.description import Description, stored_as
from core.engine.options.patterns import parse_pattern
from core.engine.removals.vocabulary import reduced_description
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.recipes.sizes import expected_size
from secateur_wire.job_body import StoredDtype
from secateur_wire.plans import Goal

PACKED = "packed"
_MOST_ZEROS = 0.95
_PRECISION = 1e-4
"""Step of a sparsity that is computed from bytes."""


@dataclass(frozen=True)
class ArtifactForm:
    """ArtifactForm of a planned artifact.

    `file_bytes` is set where an added file is what counts: the bytes of the unpruned model in such a file. `tokens` is
    the number of tokens that stay where others go first; None: all stay.
    """

    format: str = "dense"
    dtype: StoredDtype = "keep"
    file_bytes: int | None = None
    tokens: int | None = None

    def without_tokens(self, description: Description) -> Description:
        """Return the description of the model without the tokens that go first."""
        if self.tokens is None:
            return description
        return reduced_description(description.language_model, self.tokens)

    def stored_bytes(self, description: Description, request: ResolvedRequest, sparsity: float) -> int:
        """Return the bytes of a model after a request with this sparsity, in this form."""
        reduced = stored_as(self.without_tokens(description), self.dtype)
        if request.shrinks:
            sparsity *= description.parameters / reduced.parameters
        left, size = expected_size(reduced, request, self.format, sparsity=sparsity)
        return size if self.file_bytes is None else round(self.file_bytes * left / description.parameters)


@dataclass(frozen=True)
class Scale:
    """Range of a goal's amounts for a model: the `least` and the `most`, as far as the headers tell.

    The sparsity of a job is `offset + slope * amount`, and its share of the removable part is `reach` times that.
    `fixed` is the only possible amount with a pattern n:m. `steps` lists all possible amounts where the same number of
    units is removed from every layer. `token_share` of the model's parameters goes with tokens before that.
    """

    least: float
    most: float
    offset: float = 0.0
    slope: float = 1.0
    reach: float = 1.0
    fixed: float | None = None
    steps: Sequence[float] = ()
    token_share: float = 0.0

    def sparsity(self, amount: float) -> float:
        """Return the sparsity of a job that removes an amount; rounded up where bytes are counted."""
        if not self.offset:
            return amount
        scale = 1 / _PRECISION
        return math.ceil(round((self.offset + self.slope * amount) * scale, 6)) / scale

    def share(self, amount: float) -> float:
        """Return the share of the removable part."""
        return self.sparsity(amount) * self.reach

    def rounded(self, amount: float) -> tuple[float, float]:
        """Return the nearest possible amount, and the distance between the steps there."""
        if len(self.steps) < 2:
            return amount, 0.0
        after = min(max(bisect_left(self.steps, amount), 1), len(self.steps) - 1)
        below, above = self.steps[after - 1], self.steps[after]
        return (below if amount - below < above - amount else above), above - below

    def amounts(self, step: float) -> list[float]:
        """Return the possible amounts, in steps of about so much of what can go."""
        if self.fixed is not None:
            return [self.fixed]
        step /= max(1, round(self.slope))
        steps = (round(number * step, 6) for number in range(1, math.ceil(1 / step)))
        return [each for each in steps if self.least <= each <= self.most]


def scale_for(goal: Goal, description: Description, request: ResolvedRequest, form: ArtifactForm) -> Scale:
    """Return the scale of a goal for a request that fits the model, and for the form of its artifact."""
    if request.shrinks:
        scale = _of_parameters(description, form.without_tokens(description), request)
        return scale if form.file_bytes is None else _of_file(scale, form.file_bytes / description.bytes)
    fixed = parse_pattern(request.pattern).sparsity
    if goal == "size":
        dense = description.bytes
        start, half = (form.stored_bytes(description, request, each) for each in (0.0, 0.5))
        slope = dense / (2 * (start - half))
        offset = (start - dense) / (2 * (start - half))
        least = max(math.ceil(-100 * offset / slope) / 100, 0.0) + 0.01
        most = (_MOST_ZEROS - offset) / slope
        token_share = 1 - form.without_tokens(description).parameters / description.parameters
        return Scale(least, most, offset, slope, token_share=token_share)
    return Scale(0.01, _MOST_ZEROS, fixed=fixed)


def _of_parameters(description: Description, reduced: Description, request: ResolvedRequest) -> Scale:
    """Return the scale of the parameters that go of a model, first with tokens, then of the `reduced` model."""
    assert request.removal is not None
    cut = request.cut(reduced)
    left = reduced.parameters / description.parameters
    token_share = 1 - left
    reachable = [token_share + left * each for each in request.removal.reachable(cut)]
    steps = reachable if cut.layout == "uniform" and not request.removal.is_fine else []
    reach = description.parameters / description.prunable_parameters
    least = steps[1] if len(steps) > 1 else token_share + 0.01
    return Scale(least, reachable[-1], offset=-token_share, reach=reach, steps=steps, token_share=token_share)


def _of_file(scale: Scale, ratio: float) -> Scale:
    """Return the scale of the bytes of an added file that takes `ratio` of the dense bytes if nothing is removed."""
    offset, slope = 1 - 1 / ratio, 1 / ratio
    least, most, *steps = ((each - offset) / slope for each in (scale.least, scale.most, *scale.steps))
    return replace(scale, least=least, most=most, offset=offset + scale.offset, slope=slope, steps=steps)
