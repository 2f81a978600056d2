"""Texts: every format read, every fault named by line or column."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import describe, read_documents
from secateur_wire.errors import UnusableDataset


def test_three_formats_hold_the_same_documents(tmp_path: Path) -> None:
    documents = ["one\ntwo", "three — ü"]
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in [*documents, "  "]))
    pyarrow.parquet.write_table(pyarrow.table({"text": [*documents, None]}), tmp_path / "a.parquet")
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        read = list(read_documents(tmp_path / name, detect_format(tmp_path / name)))
        assert [each.strip() for each in read] == documents
    assert describe(tmp_path / "a.jsonl", "jsonl").documents == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "x"}\nnot json\n', "line 2 is not valid JSON"),
        ("a.jsonl", b'{"content": "x"}\n', "line 1 has no string field 'text'"),
        ("a.jsonl", b'["x"]\n', "line 1 has no string field"),
        ("a.jsonl", b'{"text": "x"}\n\xff\xfe\n', "line 2 is not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not valid JSON"),
        ("a.txt", b"  \n\n ", "holds no text"),
        ("a.txt", b"", "holds no text"),
        ("a.parquet", b"PAR1junk", "not a readable Parquet file"),
    ],
)
def test_faults_are_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableDataset, match=words):
        describe(tmp_path / name, detect_format(tmp_path / name))
