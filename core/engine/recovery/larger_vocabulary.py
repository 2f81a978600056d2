"""Predictions of a teacher that has more tokens than the student, as predictions of the student's tokens.

Both models read the same text. Where a token of both ends, both predict how the text goes on, and each token of the
teacher begins with one of the student's: its first piece. So the teacher's probability of the student's next token is
the sum over all of its tokens that begin with that one. Within a token of the teacher the student has to complete it:
there it learns the next token of the text, with probability 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.engine.datasets.token_bytes import TokenBytes, token_ids
from secateur_wire.errors import InvalidRequest

_TEACHER: Final = "recovery.teacher"
_NEVER: Final = -1e4
"""Logit of a token that does not follow; of minus infinity the product with a probability of 0 is not a number."""
_CUT_CHARACTER: Final = 3
"""Most tokens at either end of a sequence that may be parts of a character, which has at most four bytes."""


@dataclass(frozen=True)
class Reading:
    """The text of a student's tokens in the teacher's tokens, `ids_T`.

    Each of the student's tokens `places` ends where the teacher's token of the same number in `teacher_places` does.
    """

    ids_T: Tensor
    places: list[int]
    teacher_places: list[int]


class LargerVocabulary:
    """Vocabulary of a teacher that has all of the student's tokens, and others.

    `tokens` is the number of the student's logits. Raises InvalidRequest for a teacher that lacks one of the student's
    tokens, and for tokenizers that do not tell how they take a token apart.
    """

    def __init__(
        self, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, tokens: int, teacher_tokens: int
    ) -> None:
        if not isinstance(student, PreTrainedTokenizerFast) or not isinstance(teacher, PreTrainedTokenizerFast):
            raise InvalidRequest(
                f"{_TEACHER}: the teacher has {teacher_tokens} tokens, but the model has {tokens}: distill compares "
                "two vocabularies only where both have a tokenizer.json",
                param=_TEACHER,
            )
        self._student, self._teacher = student, teacher
        self._bytes, self._teacher_bytes = TokenBytes(student), TokenBytes(teacher)
        self._tokens = tokens
        self._firsts_V = _first_pieces(student, teacher, tokens, teacher_tokens)

    def translated(self, tokens_T: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the teacher's predictions after each of the student's tokens, as logits [time, vocabulary].

        `predict` returns the teacher's own logits of its tokens [1, time].
        """
        reading = self.read(tokens_T)
        if reading is None:
            return self.labels(tokens_T)
        return self.logits(predict(reading.ids_T.to(tokens_T.device)[None])[0], reading, tokens_T)

    def logits(self, teacher_logits_TV: Tensor, reading: Reading, tokens_T: Tensor) -> Tensor:
        """Return predictions of the tokens of `reading`, which is how the teacher read `tokens_T`, translated."""
        logits_TV, device = self.labels(tokens_T), tokens_T.device
        p_NV = teacher_logits_TV[torch.tensor(reading.teacher_places, device=device)].float().softmax(-1)
        sums_NV = torch.zeros((len(p_NV), self._tokens + 1), device=device)
        sums_NV.index_add_(1, self._firsts_V.to(device), p_NV)
        logits_TV[torch.tensor(reading.places, device=device)] = sums_NV[:, :-1].log().clamp_min(_NEVER)
        return logits_TV

    def labels(self, tokens_T: Tensor) -> Tensor:
        """Return the text itself as predictions: logits of which each gives its next token the probability 1.

        Of the last token, which has no next one, they say nothing.
        """
        logits_TV = torch.full((len(tokens_T), self._tokens), _NEVER, device=tokens_T.device)
        return logits_TV.scatter_(1, tokens_T[1:, None], 0.0)

    def read(self, tokens_T: Tensor) -> Reading | None:
        """Return how the teacher reads a sequence of the student; None where the text of the tokens is not known.

        Tokens at the ends that are parts of a character are left out.
        """
        ids: list[int] = tokens_T.tolist()
        for cut in range(_CUT_CHARACTER + 1):
            for before in range(cut + 1):
                first, end = before, len(ids) - (cut - before)
                reading = self._read(ids[first:end], first) if first < end else None
                if reading is not None:
                    return reading
        return None

    def _read(self, ids: list[int], first: int) -> Reading | None:
        text = self._student.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        teacher_ids = token_ids(text, self._teacher)
        ends, teacher_ends = self._bytes.ends(text, ids), self._teacher_bytes.ends(text, teacher_ids)
        if ends is None or teacher_ends is None:
            return None
        both = sorted(ends.keys() & teacher_ends.keys())
        return Reading(
            torch.tensor(teacher_ids),
            [first + ends[place] - 1 for place in both],
            [teacher_ends[place] - 1 for place in both],
        )


def _first_pieces(
    student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast, tokens: int, teacher_tokens: int
) -> Tensor:
    """Return the student's first token of each token of the teacher, [teacher's vocabulary].

    It is `tokens`, which is no token's number, where there is none: for rows of the teacher without a token, and for
    tokens that the student does not write as pieces of their own text.
    """
    own, others = student.get_vocab(), teacher.get_vocab()
    missing = own.keys() - others.keys()
    if missing:
        raise InvalidRequest(
            f"{_TEACHER}: the teacher has no token {min(missing)[:100]!r}, but the model has: distill needs a teacher "
            "with all of the model's tokens",
            param=_TEACHER,
        )
    firsts_V = torch.full((teacher_tokens,), tokens)
    model = student.backend_tokenizer.model
    for token, number in others.items():
        if token in own:
            firsts_V[number] = own[token]
            continue
        pieces = model.tokenize(token)
        if pieces and "".join(each.value for each in pieces) == token:
            firsts_V[number] = pieces[0].id
    return firsts_V
