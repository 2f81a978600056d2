"""A teacher with more tokens than its student: what it says of the student's tokens."""

import json
from collections import Counter
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as RustTokenizer
from transformers import PreTrainedTokenizerFast

from core.engine.recovery.larger_vocabulary import LargerVocabulary
from core.engine.vocabulary.choice import choose_tokens
from core.engine.vocabulary.counts import count_tokens
from core.engine.vocabulary.tokenizer_kinds import parse_tokenizer
from secateur_wire.errors import InvalidRequest
from tests.engine.vocabulary.tokenizer_files import KINDS, LINES, UNKNOWN, write


def opened(content: dict[str, Any]) -> PreTrainedTokenizerFast:
    unknown = UNKNOWN if UNKNOWN in json.dumps(content["model"]) else None
    return PreTrainedTokenizerFast(tokenizer_object=RustTokenizer.from_str(json.dumps(content)), unk_token=unknown)


@pytest.fixture(scope="module", params=["byte_level", "unigram"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """A student's tokenizer with half of its teacher's tokens, and the teacher's."""
    content = KINDS[request.param]()
    if content["decoder"] is None:
        content["decoder"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    parsed = parse_tokenizer(content)
    folder = write(tmp_path_factory.mktemp(request.param), content)
    chosen = choose_tokens(parsed, count_tokens(LINES[:200], folder), tokens=parsed.size // 2 + 60)
    return opened(dict(parsed.reduced(chosen.ids))), opened(content)


def ids_of(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


Pair = tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]


def test_a_teacher_that_knows_its_next_token_knows_the_students(pair: Pair) -> None:
    student, teacher = pair
    larger = LargerVocabulary(student, teacher, len(student), len(teacher))
    alike, apart, compared = 0, 0, 0
    for line in LINES[300:400]:
        tokens_T = torch.tensor(ids_of(line, student))
        reading = larger.read(tokens_T)
        if student.unk_token_id in tokens_T.tolist():
            continue  # the text of an unknown token is not known
        assert reading is not None and reading.ids_T.tolist() == ids_of(line, teacher)
        knows_TV = torch.full((len(reading.ids_T), len(teacher)), -50.0)
        knows_TV[:-1].scatter_(1, reading.ids_T[1:, None], 50.0)
        p_TV = larger.logits(knows_TV, reading, tokens_T)[:-1].softmax(-1)
        right = (p_TV.argmax(-1) == tokens_T[1:]) & (p_TV.amax(-1) > 0.99)
        within = sorted({*range(len(tokens_T) - 1)} - {*reading.places})
        assert right[within].all(), "within a token of the teacher the text itself is learnt"
        apart, alike, compared = apart + len(within), alike + int(right.sum()), compared + len(right)
    assert apart > 100
    assert alike >= 0.97 * compared, "tokens of the student seldom reach across the ends of the teacher's"


def test_probabilities_of_tokens_that_begin_alike_are_added(pair: Pair) -> None:
    student, teacher = pair
    larger = LargerVocabulary(student, teacher, len(student), len(teacher))
    tokens_T = torch.tensor(ids_of(LINES[300], student))
    reading = larger.read(tokens_T)
    assert reading is not None
    p_V = larger.logits(torch.zeros(len(reading.ids_T), len(teacher)), reading, tokens_T)[reading.places[0]].softmax(-1)
    kept, others = student.get_vocab(), teacher.get_vocab()
    model = student.backend_tokenizer.model
    firsts = [token if token in kept else model.tokenize(token)[0].value for token in others]
    expected = Counter(first for first in firsts if first in kept)
    found = {token: round(float(p_V[number]) * expected.total()) for token, number in kept.items()}
    differing = [token for token in kept if found[token] != expected[token]]
    assert len(differing) <= 0.05 * len(kept), "but for tokens that come apart into bytes"
    assert max(expected.values()) > 3


def test_sequences_that_begin_or_end_within_a_character_are_read() -> None:
    student = opened(KINDS["byte_level"]())
    larger = LargerVocabulary(student, student, len(student), len(student))
    tokens_T = torch.tensor(ids_of("\u65e5 the quick brown fox \u672c", student))
    for first, end in ((0, len(tokens_T)), (1, len(tokens_T) - 1), (2, len(tokens_T) - 2), (2, len(tokens_T))):
        reading = larger.read(tokens_T[first:end])
        assert reading is not None
        assert len(reading.ids_T) >= len(tokens_T) - 6


def test_a_teacher_that_lacks_a_token_is_refused(pair: Pair) -> None:
    student, teacher = pair
    with pytest.raises(InvalidRequest, match="all of the model's tokens") as refused:
        LargerVocabulary(teacher, student, len(teacher), len(student))
    assert refused.value.param == "recovery.teacher"
