"""The drawing of the packages is that of the sources, and shows no import that runs up."""

import pytest

from tests.style.drawing import DRAWING, drawn


@pytest.fixture(scope="module")
def drawing() -> str:
    return drawn()


def test_the_drawing_is_of_the_sources_as_they_are(drawing: str) -> None:
    current = DRAWING.read_text(encoding="utf-8") == drawing
    assert current, "packages or their imports have changed: python -m tests.style.drawing"


def test_no_floor_imports_from_one_above(drawing: str) -> None:
    assert "runs-up" not in drawing
