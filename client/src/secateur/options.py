"""Objects of a job body, and the options of `secateur submit` that write them."""

from collections.abc import Mapping
from typing import Final

OPTIONS: Final[Mapping[str, str]] = {
    "target": "--target NAME=VALUE",
    "parameters": "--parameter NAME=VALUE",
    "calibration": "--calibration NAME",
    "evaluation": "--evaluation NAME",
    "recovery": "--recovery METHOD",
    "gates": "--max-perplexity-ratio and the other --max options",
    "output": "--format and --layout",
    "metadata": "--metadata KEY=VALUE",
}
"""Options by field: a refusal of the whole object is one of its form, which the command line's option gets right."""
