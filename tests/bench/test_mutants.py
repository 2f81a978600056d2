"""The list of mutants fits the tree, and what no test notices is said to have survived."""

import ast
import tomllib
from pathlib import Path

import pytest

from bench import cells
from bench.cells import Runner
from bench.mutants.mutant import HERE, ROOT, Exchange, Mutant, NotApplicable, by_hand, read_mutants, sampled_mutants
from bench.mutants.running import BaselineFailed, report, try_mutants

FILES = ["pyproject.toml", "growth.py", "tests/__init__.py", "tests/test_growth.py"]
FEW_PLUGINS = """
[tool.pytest.ini_options]
addopts = ["--disable-plugin-autoload", "-p", "pytest_timeout"]
"""
"""As the product's own: others take longer to load than the tests to run."""


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


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A product of two functions, one of which is tested."""
    monkeypatch.setattr(cells, "CACHE", tmp_path / "cache")
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text(FEW_PLUGINS)
    (tmp_path / "tests/__init__.py").touch()
    (tmp_path / "growth.py").write_text("def double(x):\n    return 2 * x\n\n\ndef triple(x):\n    return 3 * x\n")
    (tmp_path / "tests/test_growth.py").write_text(
        "from growth import double, triple\n\n\n"
        "def test_double():\n    assert double(2) == 4\n\n\ndef test_triple():\n    assert triple(0) == 0\n"
    )
    return tmp_path


def mutant(name: str, old: str, new: str, *tests: str) -> Mutant:
    return by_hand(name, "growth.py", old, new, [f"tests/test_growth.py::{test}" for test in tests])


NOTICED = mutant("noticed", "2 * x", "2 + x + 1", "test_double")
UNNOTICED = mutant("unnoticed", "3 * x", "4 * x", "test_triple")
ABSENT = mutant("absent", "5 * x", "6 * x", "test_triple")
AMBIGUOUS = mutant("ambiguous", "return", "yield", "test_triple")
NO_TEST = mutant("no test", "2 * x", "3 * x", "test_fourfold")


def test_what_is_noticed_is_killed_and_the_rest_survives_or_does_not_apply(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mutants = [NOTICED, UNNOTICED]
    results = try_mutants(mutants, tree, FILES, Runner(), at_once=2)
    assert [results[each]["killed"] for each in mutants] == [True, False]
    assert results[NOTICED]["detail"] == "tests/test_growth.py::test_double"
    assert (tree / "growth.py").read_text().count("2 * x") == 1, "only copies are changed"
    for each in (ABSENT, AMBIGUOUS):
        with pytest.raises(NotApplicable, match=each.name):
            try_mutants([each], tree, FILES, Runner())

    assert report(results, 2, 0.95) == 1
    told = capsys.readouterr().out
    assert "survived: unnoticed: every test passed: tests/test_growth.py::test_triple" in told
    assert "1 of 2 killed, 50.0 %" in told
    assert report({NOTICED: results[NOTICED]}, 1, 0.95) == 0
    assert report({NOTICED: results[NOTICED]}, 2, 0.95) == 1, "not all were tried"

    assert try_mutants(mutants, tree, FILES, Runner(runs=False)) == results
    with (tree / "tests/test_growth.py").open("a") as tests:
        tests.write("\n\ndef test_triple_of_one():\n    assert triple(1) == 3\n")
    assert try_mutants(mutants, tree, FILES, Runner(runs=False)) == {}, "the tests are others now"


def test_tests_that_fail_or_do_not_exist_prove_nothing(tree: Path) -> None:
    with pytest.raises(BaselineFailed, match="not all pass"):
        try_mutants([NO_TEST], tree, FILES, Runner())
    (tree / "growth.py").write_text("def double(x):\n    return 2 * x + 1\n\n\ndef triple(x):\n    return 3 * x\n")
    with pytest.raises(BaselineFailed, match="test_double"):
        try_mutants([mutant("late", "3 * x", "4 * x", "test_double")], tree, FILES, Runner())


def test_a_sample_is_drawn_by_its_seed_from_modules_that_are_there_with_their_tests(tmp_path: Path) -> None:
    listed = tomllib.loads((HERE / "sampled.toml").read_text())["module"]
    assert all((ROOT / name).is_file() for module in listed for name in (module["file"], *module["tests"]))
    few = tmp_path / "few.toml"
    few.write_text("[[module]]\nfile = 'core/service/triggers/placeholders.py'\ntests = ['a']\n")
    samples = [[each.name for each in sampled_mutants(5, seed, few)] for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]


def test_two_mutants_of_one_name_are_an_error(tmp_path: Path) -> None:
    table = "[[mutant]]\nname = 'a'\nfile = 'f'\nold = 'x'\nnew = 'y'\ntests = ['t']\n"
    (tmp_path / "one.toml").write_text(table)
    (tmp_path / "two.toml").write_text(table)
    with pytest.raises(NotApplicable, match="named a"):
        read_mutants(tmp_path)
