import pytest

from core.progress import PartialProgress, Progress, WorkStopped
from tests.engine.watching import Watching


def test_a_part_covers_its_share_and_passes_all_else_on() -> None:
    watching = Watching(stop_after=3)
    part = PartialProgress(PartialProgress(watching, 0.5), end=0.5)
    for done in (0, 1, 2):
        part.raise_if_stopped()
        part.advance(done / 2, done, 2)
    part.log("a remark")
    assert watching.shares == [0.5, 0.625, 0.75] and watching.done == [0, 1, 2] and watching.logs == ["a remark"]
    with pytest.raises(WorkStopped):
        part.raise_if_stopped()


def test_nobody_who_listens_never_stops_anything() -> None:
    Progress().advance(1.0)
    Progress().raise_if_stopped()
