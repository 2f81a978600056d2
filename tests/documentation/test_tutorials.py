"""The tutorials' notebooks, run from the first cell to the last against a server that `secateur serve` starts."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.documentation.conftest import ROOT
from tests.documentation.served_home import served_home

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(path, as_version=4)
    with served_home(tmp_path, samples) as home:
        for name, value in home.variables.items():
            monkeypatch.setenv(name, value)
        NotebookClient(notebook, timeout=3000, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "succeeded" in shown and "verified" in shown
