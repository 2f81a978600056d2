"""The lists of mutants fit the tree, and a sample is drawn by its seed."""

import ast
import tomllib
from pathlib import Path

from bench.mutants.mutant import HERE, ROOT, Exchange, read_mutants, sampled_mutants


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


def test_a_sample_is_drawn_by_its_seed_from_modules_that_are_there_with_their_tests(tmp_path: Path) -> None:
    listed = tomllib.loads((HERE / "sampled.toml").read_text())["module"]
    assert all((ROOT / name).is_file() for module in listed for name in (module["file"], *module["tests"]))
    few = tmp_path / "few.toml"
    few.write_text("[[module]]\nfile = 'core/service/triggers/placeholders.py'\ntests = ['a']\n")
    samples = [[each.name for each in sampled_mutants(5, seed, few)] for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
