"""The table of faults, written into a page."""

from pathlib import Path
from typing import Any

from bench.chaos.report import SECTION, write


def fault(kind: str, stage: str | None, recovery: float | None) -> dict[str, Any]:
    return {"number": 1, "kind": kind, "target": "x", "stage": stage, "seconds": 1, "recovery_seconds": recovery}


def test_faults_are_counted_by_kind_and_stage_over_all_seeds(tmp_path: Path) -> None:
    faults = [
        [fault("kill", "fetch", 4.25), fault("cut", "prune", None)],
        [fault("kill", "prune", 2.5), fault("freeze", None, 1.0)],
    ]
    results = [{"seed": seed, "faults": each, "violations": ["one"]} for seed, each in enumerate(faults)]
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n<!-- {SECTION} -->\nold\n<!-- /{SECTION} -->\nafter\n")
    write(page, results)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "2 seeds, 4 faults, 2 violations" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[2:5] == [["cut", "1", "too long"], ["freeze", "1", "1.0"], ["kill", "2", "4.2"]]
    assert rows[7:] == [["fetch", "1"], ["prune", "2"], ["none", "1"]]


def test_the_page_has_its_section() -> None:
    page = (Path(__file__).parents[2] / "docs/faults.md").read_text()
    assert f"<!-- {SECTION} -->\n" in page and f"<!-- /{SECTION} -->" in page
