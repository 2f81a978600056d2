"""The bench of a GPU, tried without one: what it refuses, that it stops and goes on, and tables of a simulated one."""

from pathlib import Path

import pytest

from bench import gpu
from bench.cells import Runner
from core.device_kinds import CPU, DEVICE_KINDS
from tests.worker.recordings import LIBRARY_NOT_FOUND, Recording, h100, lost
from tests.worker.test_devices import SIMULATED


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Driver that answers from a recording; everything is kept in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    recording = Recording(tmp_path / "nvml.json")
    for name, value in recording.environment(SIMULATED).items():
        monkeypatch.setenv(name, value)
    return recording


def test_without_a_card_or_with_one_that_failed_nothing_is_measured(
    recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.write({"error": LIBRARY_NOT_FOUND})
    assert gpu.main([]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    recording.write(n0=lost(h100()))
    assert gpu.refusal("cuda") is not None and "failed" in str(gpu.refusal("cuda"))
    recording.write(n0=h100())
    assert gpu.refusal("cuda") is None and gpu.name_of("cuda").startswith("NVIDIA H100 80GB HBM3; ")


def test_a_page_takes_no_figures_of_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--write", "docs/gpu.md"])
    assert "dry run" in capsys.readouterr().err


def test_when_the_time_is_over_nothing_more_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gpu.main(["--device", "cpu", "--shape", "tiny", "--hours", "0"]) == 0
    shown = capsys.readouterr()
    assert "The time limit ended the run; the same command goes on" in shown.out


def test_a_model_for_which_the_disk_is_too_small_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert 2.4e9 < gpu.SHAPES["1B"].bytes < 2.6e9 and 130e9 < gpu.SHAPES["70B"].bytes < 145e9
    monkeypatch.setitem(gpu.SHAPES, "huge", gpu.Shape(2**16, 2**18, 1000, 128, 8, 2**17))
    bench = gpu.Bench("cpu", "a machine", Runner(deadline=0))
    bench.measure(["huge"], gpu.METHODS, tests=False)
    assert bench.runner.runs and "GiB of disk" in bench.tables.notes[0]


@pytest.mark.nightly
def test_on_a_simulated_device_it_runs_through_and_then_knows_all_of_it(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DEVICE_KINDS, "sim", CPU)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_SIMULATED_LOG", str(tmp_path / "devices.log"))
    arguments = ["--device", "sim", "--shape", "tiny"]
    assert gpu.main(arguments) == 0, capsys.readouterr()
    shown = capsys.readouterr().out
    rows = [line.split("|") for line in shown.splitlines() if line.startswith("| tiny")]
    pruned = [row for row in rows if len(row) == 9]
    assert [row[2].strip() for row in pruned] == [each.title for each in gpu.METHODS]
    assert all(float(row[3]) >= 0 and row[6].strip() != "–" for row in pruned), "no peak of the device"
    assert len(rows) - len(pruned) == len(gpu.TOKENS) and "matrix precision `highest`" in shown
    assert not list((tmp_path / ".cache/bench/models").iterdir()), "a model is left"

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    look = gpu.run
    monkeypatch.setattr(gpu, "run", lambda program, spec, key, **limit: (
        look(program, spec, key, **limit) if key == "gpu-look" else nothing()
    ))  # fmt: skip
    assert gpu.main(arguments) == 0
    assert shown.endswith(capsys.readouterr().out)
