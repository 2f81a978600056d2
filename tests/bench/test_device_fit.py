"""The table of what fits a card, as the docs have it."""

from pathlib import Path

from bench.device_fit import table

_DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"


def test_the_docs_have_the_table_that_estimates_give() -> None:
    assert "\n".join(table()) in _DOCS.read_text()
