"""Counts of tokens over documents: those of the library, whatever the batches."""

from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from core.engine.datasets.formats import DOCUMENT_END
from core.engine.removals.vocabulary.tokenizers import counts
from core.engine.removals.vocabulary.tokenizers.counts import count_tokens
from tests.engine.vocabulary.tokenizer_files import KINDS, LINES, write


@pytest.mark.parametrize("batch", [1, 300, 2**20])
@pytest.mark.parametrize("kind", ["byte_level", "word_piece"])
def test_counts_are_those_of_every_document(
    kind: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_BATCH_CHARACTERS", max(batch, max(map(len, LINES)) + 2))
    folder = write(tmp_path, KINDS[kind]())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    expected = Counter(
        number for line in LINES for number in tokenizer.encode(line + DOCUMENT_END, add_special_tokens=False).ids
    )
    counted = count_tokens(iter(LINES), folder)
    assert {number: int(count) for number, count in enumerate(counted.by_id) if count} == dict(expected)
    assert counted.documents == len(LINES) and counted.tokens == expected.total()
    assert counted.bytes == sum(len((line + DOCUMENT_END).encode()) for line in LINES)
    assert counted.scripts["Greek"] == sum("\u0370" <= each <= "\u03ff" for line in LINES for each in line)


def test_a_long_document_is_counted_in_parts_that_end_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, KINDS["byte_level"]())
    document = "\n".join(["the quick brown Fox"] * 50)
    whole = count_tokens([document], folder)
    monkeypatch.setattr(counts, "_BATCH_CHARACTERS", 101)
    parts = count_tokens([document], folder)
    assert (parts.by_id == whole.by_id).all() and parts.documents == 1 and parts.bytes == whole.bytes
