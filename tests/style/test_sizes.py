import pytest

from tests.style.sizes import FIGURES, Figure, allowed, problem


@pytest.mark.parametrize("name", FIGURES)
def test_no_size_is_above_its_ratchet_or_far_below_it(name: str) -> None:
    figure = FIGURES[name]
    wrong = problem(figure, figure.value, allowed()[name])
    assert wrong is None, f"{wrong} (`python -m tests.style.sizes --files` lists the places, `--write` lowers)"


@pytest.mark.parametrize(
    ("value", "most", "slack", "said"),
    [
        (100, 100, 0, None),
        (101, 100, 0, "101, and 100 at most"),
        (99, 100, 0, "lower the ratchet to 99"),
        (90, 100, 10, None),
        (89, 100, 10, "lower the ratchet to 94"),
        (101, 100, 10, "at most"),
    ],
)
def test_a_ratchet_only_falls_and_follows(value: float, most: float, slack: float, said: str | None) -> None:
    found = problem(Figure("it matters", 0, slack, list), value, most)
    assert (found is None) if said is None else found is not None and said in found
