"""Thousands of broken files: an error or success, never a crash, a hang or memory over the cap."""

import json
import math
import struct
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.engine.checkpoints.safetensors_header import encode_header, read_header
from core.engine.datasets.text_files import describe
from core.untrusted_json import FILE_LIMITS, parse_json
from secateur_wire.errors import CorruptSafetensors, UnusableDataset

SECONDS_A_CASE = 60
"""A case takes a millisecond; only one that hangs takes this."""


@pytest.mark.parametrize("cases", [600, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_no_broken_file_crashes_hangs_or_fills_memory(cases: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.reader", "0", str(cases)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told: Queue[str | None] = Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told.put(line.strip())
        told.put(None)

    threading.Thread(target=listen, daemon=True).start()
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    last = "nothing"
    try:
        while (line := told.get(timeout=SECONDS_A_CASE)) is not None:
            last = line
            if line.startswith("end"):
                how = line.split(" ", 2)[2]
                outcomes[how.partition(" ")[0]] += 1
                wrong += [line] if how.startswith("wrong") else []
    except Empty:
        pytest.fail(f"case hangs: {last}")
    finally:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == 0, f"crashed ({process.returncode}) after: {last}\n{errors[-2000:]}"
    assert not wrong, wrong[:20]
    assert outcomes["ok"] + outcomes["refused"] == cases
    assert outcomes["ok"] > cases // 50 and outcomes["refused"] > cases // 2, outcomes


_BOMB = """
import sys
import pyarrow, pyarrow.parquet
word = pyarrow.array(["b" * 30_000_000])
column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 256, pyarrow.int32()), word)
pyarrow.parquet.write_table(pyarrow.table({"text": column}), sys.argv[1], compression="zstd", store_schema=False)
"""
"""A few kilobytes that unpack to gigabytes: one word, often."""


def test_a_parquet_bomb_goes_off_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "bomb.parquet"
    subprocess.run([sys.executable, "-c", _BOMB, str(file)], check=True)
    assert file.stat().st_size < 200_000
    with pytest.raises(UnusableDataset, match="memory"):
        describe(file, "parquet")


def test_a_reader_that_dies_is_an_unusable_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["words"] * 10}), file)
    assert describe(file, "parquet").documents == 10
    monkeypatch.setattr("core.sandbox.SECONDS", -1.0)
    with pytest.raises(UnusableDataset, match="could not be read within the time and memory"):
        describe(file, "parquet")


@pytest.mark.parametrize("kind", ["values", "levels", "names"])
def test_json_is_bounded_before_it_is_believed(kind: str) -> None:
    text = {
        "values": b"[" + b"[]," * FILE_LIMITS.values + b"[]]",
        "levels": b"[" * (FILE_LIMITS.levels + 1) + b"]" * (FILE_LIMITS.levels + 1),
        "names": b'{"a": 1, "b": 2, "a": 1}',
    }[kind]
    with pytest.raises(ValueError, match={"values": "values", "levels": "levels", "names": "'a' is given twice"}[kind]):
        parse_json(text)
    assert parse_json(b"[" * FILE_LIMITS.levels + b"]" * FILE_LIMITS.levels)


_DIMENSIONS = st.lists(st.integers(0, 6), max_size=4)
_DTYPES = st.sampled_from([("F32", 4), ("BF16", 2), ("I64", 8), ("U8", 1)])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)
_ENTRY = st.builds(
    lambda start, size: {"dtype": "U8", "shape": [size], "data_offsets": [start, start + size]},
    st.integers(0, 4),
    st.integers(0, 4),
)
bounded = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@bounded
@given(tensors=st.dictionaries(st.text(max_size=30), st.tuples(_DTYPES, _DIMENSIONS), max_size=6))
def test_a_header_that_is_written_is_read_again(tmp_path: Path, tensors: dict[str, Any]) -> None:
    tensors.pop("__metadata__", None)
    sizes = {name: width * math.prod(shape) for name, ((_, width), shape) in tensors.items()}
    header = encode_header((name, dtype, shape, sizes[name]) for name, ((dtype, _), shape) in tensors.items())
    file = tmp_path / "a.safetensors"
    file.write_bytes(header + b"\0" * sum(sizes.values()))
    entries = read_header(file)
    assert {name: (entry.dtype, list(entry.shape), entry.end - entry.start) for name, entry in entries.items()} == {
        name: (dtype, shape, sizes[name]) for name, ((dtype, _), shape) in tensors.items()
    }


@bounded
@given(header=_JSON | st.dictionaries(st.text(max_size=4), _ENTRY, max_size=3), data=st.binary(max_size=8))
def test_a_header_of_anything_is_refused_or_tiles_the_file(tmp_path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    try:
        entries = sorted(read_header(file).values(), key=lambda entry: (entry.start, entry.end))
    except CorruptSafetensors:
        return
    place = 8 + len(text)
    for entry in entries:
        assert entry.start == place
        place = entry.end
    assert place == file.stat().st_size
