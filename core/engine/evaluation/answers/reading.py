"""Written answers, read as they are compared: their texts and thoughts, counted in the dense model's tokens."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from core.engine.datasets.token_bytes import token_ids
from core.engine.evaluation.answers.answerer import Written
from core.engine.evaluation.answers.figures import ReadAnswer
from core.engine.evaluation.answers.questions import EvaluationQuestion
from core.engine.evaluation.answers.thoughts import ThoughtSplit, split_thought, without_marks


class AnswerReader:
    """Reader of one model's answers. With `counted_in`, tokens are counted in that tokenizer's instead of its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, counted_in: PreTrainedTokenizerBase | None = None) -> None:
        self._tokenizer = tokenizer
        self._counted_in = counted_in

    def read(self, question: EvaluationQuestion, written: Written) -> ReadAnswer:
        """Return an answer as it is compared."""
        ids, split = written.tokens, self.split(question, written)
        answer = self._text(ids[split.thought :])
        thought = without_marks(self._text(ids[: split.thought])) if split.has_thought else None
        return ReadAnswer(
            text=answer.strip() if split.has_thought else answer,
            tokens=self._counted(ids[split.thought :]),
            ended=written.ended,
            thought=thought,
            thought_tokens=len(self._counted(ids[: split.thought])),
            thought_ended=split.is_finished,
        )

    def split(self, question: EvaluationQuestion, written: Written) -> ThoughtSplit:
        """Return where the thought of an answer ends, in the model's own tokens."""
        return split_thought(written.tokens, self._with_marks, is_open=question.opens_thought)

    def first(self, written: Written) -> str | None:
        """Return the first token as the vocabulary spells it; None for an answer without one."""
        return self._tokenizer.convert_ids_to_tokens(written.tokens[:1])[0] if written.tokens else None

    def _counted(self, ids: Sequence[int]) -> list[int]:
        if self._counted_in is None:
            return [*ids]
        return token_ids(self._with_marks(ids), self._counted_in)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*ids], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _with_marks(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*ids], skip_special_tokens=False, clean_up_tokenization_spaces=False))
