"""Last number of an answer, as answers of GSM8K are scored (Cobbe et al. 2021, arXiv:2110.14168)."""

import re
from decimal import Decimal
from typing import Any, Final

from core.engine.datasets.checks.check import Check

_NUMBER: Final = re.compile(r"(?<![\w.])[-\N{MINUS SIGN}]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+")
_GSM8K_MARK: Final = "####"


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, None without one. Commas between thousands are read over."""
    numbers: list[str] = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "").replace("\N{MINUS SIGN}", "-")) if numbers else None


def _read(reference: Any) -> Decimal:
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        number = Decimal(str(reference))
        if number.is_finite():
            return number
    if isinstance(reference, str):
        text = reference.rpartition(_GSM8K_MARK)[2].strip()
        if _NUMBER.fullmatch(text) and (read := last_number(text)) is not None:
            return read
    raise ValueError(
        f"a number, a text that is a number, or a worked answer that ends in '{_GSM8K_MARK} NUMBER' is needed, "
        f"not {str(reference)[:60]!r}"
    )


def _ends_in(answer: str, number: Decimal) -> bool:
    return last_number(answer) == number


CHECK = Check("number", 3, "the last number is the reference's", _read, _ends_in)
