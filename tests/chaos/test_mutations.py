"""The mutations of the chaos harness fit the tree, and each has its scenario."""

from bench.chaos.mutations import ROOT, read_mutations
from bench.chaos.scenarios import SCENARIOS


def test_every_mutation_fits_the_tree_and_has_its_scenario() -> None:
    mutations = read_mutations()
    assert {each.promise for each in mutations} == {"fencing", "events", "manifest"}
    for mutation in mutations:
        assert mutation.scenario in SCENARIOS
        assert mutation.changes
        for change in mutation.changes:
            compile(change.applied((ROOT / change.file).read_text("utf-8")), change.file, "exec")
