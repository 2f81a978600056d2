"""The lists of mutants fit the tree, and a sample is drawn by its seed."""

import ast

from bench.mutants.mutant import ROOT, Exchange, read_mutants, sampled_mutants


def test_every_mutant_of_the_list_fits_the_tree_and_has_its_tests() -> None:
    mutants = read_mutants()
    assert len(mutants) >= 60
    for mutant in mutants:
        assert (
            mutant.tests
            and isinstance(mutant.operator, Exchange)
            and mutant.operator.fits((ROOT / mutant.file).read_text("utf-8"))
        ), mutant.name
        for test in mutant.tests:
            file, _, name = test.partition("::")
            tree = ast.parse((ROOT / file).read_text("utf-8"))
            functions = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
            assert not name or name.partition("[")[0] in functions, f"{mutant.name}: there is no test {test}"


def test_a_sample_of_the_product_is_drawn_by_its_seed_with_the_tests_that_are_near() -> None:
    samples = [sampled_mutants(3, seed) for seed in (1, 1, 2)]
    assert [each.name for each in samples[0]] == [each.name for each in samples[1]]
    assert not {each.name for each in samples[0]} & {each.name for each in samples[2]}
    for mutant in samples[0]:
        assert mutant.tests and mutant.applied((ROOT / mutant.file).read_text("utf-8"))
