"""A whole run of the harness, small: the representative of the long ones of `make nightly`."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.chaos.fleet import FEW
from bench.chaos.running import run
from tests.forked_processes import warm_python

SEED = 13954


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_two_faults_of_a_small_fleet_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.chaos.promises.artifacts.RELOAD", (*warm_python(), "-m", "bench.chaos.reload"))
    with TemporaryDirectory(prefix="chaos-") as folder:
        result = run(SEED, 2, None, Path(folder) / "run", services=FEW, clients_of_team=1)
    assert not result.violations, "\n".join(result.violations)
    assert [done.kind for done in result.faults] == ["postgres_immediate", "kill"]
    assert any(done.stage for done in result.faults), "none hit a job in the stage it was aimed at"
