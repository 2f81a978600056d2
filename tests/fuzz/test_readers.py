"""Thousands of broken files: an error or success, never a crash, a hang or memory over the cap."""

import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.engine.checkpoints.safetensors_header import read_header
from core.engine.datasets.text_files import describe
from core.untrusted_json import FILE_LIMITS, parse_json
from secateur_wire.errors import CorruptSafetensors, UnusableDataset


@pytest.mark.parametrize("cases", [600, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_no_broken_file_crashes_hangs_or_fills_memory(cases: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz.reader", "0", str(cases)]
    try:
        ended = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60 + cases / 20
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"case hangs: {(late.stdout or b'')[-300:]!r}")
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, f"crashed ({ended.returncode}) after: {lines[-1:]}\n{ended.stderr[-2000:]}"
    ends = [line.split(" ", 2)[2] for line in lines if line.startswith("end")]
    outcomes = Counter(how.partition(" ")[0] for how in ends)
    wrong = [how for how in ends if how.startswith("wrong")]
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
