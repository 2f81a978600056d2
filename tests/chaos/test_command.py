"""The command: what it says last, how it exits, and which seeds it tries again."""

from pathlib import Path
from typing import Any

import pytest

from bench.chaos import __main__ as command
from bench.chaos.running import Done, Result, Say


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Seeds that were run; nothing really is. Of seed 2 something was broken."""
    seeds: list[int] = []

    def run(seed: int, faults: int, seconds: float | None, folder: Path, say: Say, **chosen: Any) -> Result:
        seeds.append(seed)
        done = [Done(number, "kill", "api-0", "prune", "job_1", 0.0, 1.5) for number in range(faults)]
        return Result(seed, faults, command.sources(), done, ["events: a gap"] if seed == 2 else [])

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(command.tempfile, "mkdtemp", lambda **_: _made(tmp_path / "run"))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    return seeds


def _made(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return str(folder)


def test_it_ends_with_the_figures_and_fails_where_something_was_broken(
    tried: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--seed", "1", "--faults", "3"]) == 0
    assert capsys.readouterr().out.endswith("\nfaults 3, violations 0\n")
    assert command.main(["--seeds", "1-3", "--faults", "4"]) == 1
    said = capsys.readouterr().out
    assert "seed 2: events: a gap" in said and said.endswith("\nfaults 12, violations 1\n")


def test_a_run_of_some_kinds_is_not_kept_as_one_of_its_seed(tried: list[int], tmp_path: Path) -> None:
    command.main(["--seeds", "1-3", "--faults", "5", "--kinds", "hub_away,hub_silent"])
    command.main(["--seeds", "1-3", "--faults", "5", "--pooler"])
    assert tried == [1, 2, 3, 1, 2, 3] and not (tmp_path / "results").exists()
    with pytest.raises(SystemExit):
        command.main(["--kinds", "hub_away,none"])


def test_seeds_that_were_tried_are_left_out_until_what_was_tried_has_changed(
    tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    several: list[Any] = ["--seeds", "1-3", "--faults", "5"]
    command.main(several)
    command.main(several)
    assert tried == [1, 2, 3]
    command.main(["--seeds", "3-4", "--faults", "5"])
    assert tried == [1, 2, 3, 4]
    command.main(["--seeds", "4-4", "--faults", "6"])
    assert tried == [1, 2, 3, 4, 4]
    monkeypatch.setattr(command, "sources", lambda: "others")
    command.main(several)
    assert tried == [1, 2, 3, 4, 4, 1, 2, 3]
