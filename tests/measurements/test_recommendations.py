"""Recommendations of texts and defaults agree with the measured tables."""

import re

import pytest

from core.measurements.reader import Table, measured_losses, measurements
from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS
from core.pipeline.reports.verdict import SAME_AMOUNT, band_of
from core.service.plans.assumptions import usual_amount
from secateur_wire.models import ModelSummary

WORDS = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "a fifth": 1 / 5, "a tenth": 1 / 10}
LLAMA = ModelSummary(
    task="language-model", family="Llama", architecture="Llama", dtype="float32", layers=1, parameters=1,
    prunable_parameters=1, bytes=4,
)  # fmt: skip
AMOUNT = re.compile(rf"\b(?:{'|'.join(WORDS)})\b|\d+ ?%")
TABLES: dict[str, Table] = {"structured": "structured", "unstructured": "zeros", "n:m": "zeros"}


def ruinous_amounts(info: MethodInfo, pattern: str) -> list[float]:
    """Return the amounts after which a job with the method's defaults, or as a plan offers it, was much worse."""
    settings = [{}, *(offer.parameters for offer in info.offers)]
    return [
        row.sparsity
        for row in measurements(TABLES[pattern])
        if (row.method, row.pattern) == (info.id, pattern) and row.recovery is None and row.parameters in settings
        if band_of(max(text.mean for text in row.perplexity.values())) in ("much worse", "unusable")
    ]


def recommended_amounts(text: str) -> list[float]:
    """Return the amounts that a text names beside its measured figures."""
    written = re.sub(r"Measured on .*?%\.", "", text)
    return [WORDS.get(each) or float(each.rstrip(" %")) / 100 for each in AMOUNT.findall(written)]


@pytest.mark.parametrize("method", METHODS)
def test_no_text_and_no_default_recommends_what_was_measured_to_be_much_worse(method: str) -> None:
    info = METHODS[method]
    for pattern in info.patterns:
        ruinous = ruinous_amounts(info, pattern)
        texts = [info.summary, info.variant(pattern).description]
        texts += [each.reason for each in info.offers if each.pattern == pattern and each.task == "language-model"]
        amounts = [each for text in texts for each in recommended_amounts(text)]
        if pattern != "n:m" and not info.is_baseline:
            amounts.append(usual_amount(method, pattern, LLAMA))
        for amount in amounts:
            assert amount < min(ruinous, default=1) - SAME_AMOUNT, (pattern, amount, texts)


@pytest.mark.parametrize(("method", "pattern"), [
    ("wanda", "unstructured"), ("sparsegpt", "unstructured"), ("frontier", "unstructured"),
    ("frontier", "structured"), ("depth", "structured"), ("flap", "structured"),
])  # fmt: skip
def test_a_description_has_its_figures_from_the_table(method: str, pattern: str) -> None:
    said = METHODS[method].variant(pattern).description
    assert measured_losses(method, TABLES[pattern], pattern) in said
    rows = [each for each in measurements(TABLES[pattern]) if (each.method, each.pattern) == (method, pattern)]
    for row in rows:
        assert f" at {row.sparsity:.0%}" in said
