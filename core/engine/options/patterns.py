"""Sparsity patterns: `unstructured`, `n:m` and `structured`.

`n:m` keeps n of every m consecutive input weights; `structured` removes whole heads, channels or layers, and the model
gets smaller.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.engine.architectures.structure import LinearShape
from core.validation import nearest_hint, share_hint
from secateur_wire.errors import IndivisibleWidth, InvalidPattern, InvalidSparsity

PatternFamily = Literal["unstructured", "n:m", "structured"]
"""Families of patterns; only n:m has more than one member."""

_N_M = re.compile(r"([0-9]{1,4}):([0-9]{1,4})")


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. `keep` and `of` are n and m of `n:m`, None for `unstructured`."""

    text: str
    keep: int | None = None
    of: int | None = None

    @property
    def is_n_m(self) -> bool:
        return self.of is not None

    @property
    def family(self) -> PatternFamily:
        if self.is_n_m:
            return "n:m"
        return "structured" if self.text == STRUCTURED.text else "unstructured"

    @property
    def sparsity(self) -> float | None:
        """Return the share of weights the pattern removes; None where the pattern leaves it open."""
        if self.keep is None or self.of is None:
            return None
        return 1 - self.keep / self.of

    @property
    def shrinks(self) -> bool:
        """Return True if whole parts are removed and the model gets smaller; False if weights become zero."""
        return self.family == "structured"

    @property
    def is_unrestricted(self) -> bool:
        """Return True if any weight may be removed, regardless of its position."""
        return self.family == "unstructured"


UNSTRUCTURED = Pattern("unstructured")
STRUCTURED = Pattern("structured")


_SHARE_OF = {UNSTRUCTURED.text: "prunable weights", STRUCTURED.text: "the model's parameters"}


def parse_pattern(text: str) -> Pattern:
    """Parse a pattern; raises InvalidPattern naming the valid ones."""
    for named in (UNSTRUCTURED, STRUCTURED):
        if text == named.text:
            return named
    match = _N_M.fullmatch(text)
    if match is None:
        numbers = re.findall("[0-9]+", text)
        likely = [UNSTRUCTURED.text, STRUCTURED.text, *([":".join(numbers)] if len(numbers) == 2 else [])]
        raise InvalidPattern(
            f"pattern {text!r} is not known: use 'unstructured', 'structured' or 'n:m', for example '2:4' (keep 2 "
            f"of 4){nearest_hint(text, likely)}",
            param="pattern",
        )
    keep, of = int(match[1]), int(match[2])
    if not 0 < keep < of:
        raise InvalidPattern(
            f"pattern {text!r} must keep at least 1 and fewer than m of every m weights (0 < n < m)", param="pattern"
        )
    return Pattern(f"{keep}:{of}", keep, of)


def family_of(text: str | None) -> PatternFamily | None:
    """Return the family of a pattern; None where the text is no pattern."""
    try:
        return None if text is None else parse_pattern(text).family
    except InvalidPattern:
        return None


def resolve_sparsity(pattern: Pattern, sparsity: float | None) -> float:
    """Return the sparsity of a request; raises InvalidSparsity if it is out of range or contradicts the pattern."""
    if sparsity is not None and not 0 <= sparsity < 1:
        raise InvalidSparsity(
            f"sparsity {sparsity:g} is out of range: 0 ≤ sparsity < 1{share_hint(sparsity)}", param="sparsity"
        )
    fixed = pattern.sparsity
    if fixed is None:
        if sparsity is None:
            raise InvalidSparsity(
                f"sparsity is required with pattern {pattern.text!r}: the share of {_SHARE_OF[pattern.text]} to "
                "remove, for example 0.5",
                param="sparsity",
            )
        return sparsity
    if sparsity is not None and abs(sparsity - fixed) > 1e-6:
        raise InvalidSparsity(
            f"sparsity {sparsity} does not agree with pattern {pattern.text!r}, which removes {fixed:g}: leave "
            f"sparsity out, or give {fixed:g}",
            param="sparsity",
        )
    return fixed


def require_divisible(linears: Iterable[LinearShape], pattern: Pattern) -> None:
    """Require that m of `n:m` divides each layer's rows; raises IndivisibleWidth naming the first exception."""
    for linear in linears:
        width = linear.in_features // linear.kernel
        if pattern.of is not None and width % pattern.of:
            inputs = "input weights per row" if linear.kernel == 1 else "input channels"
            raise IndivisibleWidth(
                f"{linear.name} has {width} {inputs}, which {pattern.of} does not divide: pattern {pattern.text} "
                "cannot be applied; skip it (parameters.skip_modules) or choose another m",
                param="pattern",
            )
