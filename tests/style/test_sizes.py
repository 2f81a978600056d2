import pytest

from tests.style.sizes import FIGURES, allowed, problem


@pytest.mark.parametrize("name", FIGURES)
def test_no_size_is_above_its_ratchet_or_far_below_it(name: str) -> None:
    figure = FIGURES[name]
    wrong = problem(figure, figure.value, allowed()[name])
    assert wrong is None, f"{wrong} (`python -m tests.style.sizes --files` lists the places, `--write` lowers)"
