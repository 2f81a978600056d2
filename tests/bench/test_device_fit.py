"""The table of what fits a card, as the docs have it."""

from pathlib import Path

from bench.device_fit import cell, table

_DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"


def test_the_docs_have_the_table_that_estimates_give() -> None:
    lines = _DOCS.read_text().splitlines()
    assert [line for line in table(is_traced=False) if line not in lines] == []


def test_the_docs_have_what_a_trace_gives() -> None:
    assert f"| magnitude | {cell('7B', 'bfloat16', 'magnitude', 'unstructured', {})} |" in _DOCS.read_text()
