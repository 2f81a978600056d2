"""The mutations of the chaos harness fit the tree, and each has its scenario."""

import shutil
from pathlib import Path

from bench.chaos.mutations import ROOT, SCENARIOS, apply, read_mutations


def test_every_mutation_fits_the_tree_and_has_its_scenario(tmp_path: Path) -> None:
    mutations = read_mutations()
    assert {each["promise"] for each in mutations} == {"fencing", "events", "manifest"}
    for mutation in mutations:
        assert mutation["scenario"] in SCENARIOS and mutation["change"]
        for change in mutation["change"]:
            file = tmp_path / change["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / change["file"], file)
            apply(change, tmp_path)
            compile(file.read_text("utf-8"), change["file"], "exec")
