"""Model that answers questions, and its hidden states along given answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.engine.datasets.chat.conversations import Frame
from core.engine.datasets.token_bytes import token_ids
from core.engine.datasets.token_windows import starts_with_bos
from core.engine.evaluation.answers.questions import EvaluationQuestion
from core.engine.models.folder import ModelFolder
from core.engine.models.generation import TokenWriter, TurnEnds, first_token
from core.engine.models.hooks import removed_after
from core.engine.models.loading import load_model
from core.engine.models.micro_batches import AtOnce


@dataclass(frozen=True)
class Written:
    """Tokens of an answer, without the one that ended it; `ended`: the model ended it itself."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class Answerer:
    """Model in memory that answers questions with at most `most` tokens; `frame` are the words of its chat template.

    Raises the errors of loading a model; while it writes, NotFiniteWeights where it computes no probabilities.
    """

    def __init__(
        self, folder: ModelFolder, *, frame: Frame | None, most: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._folder = folder
        self._tokenizer = folder.tokenizer()
        self._most = most
        self._model = load_model(folder, device, dtype=dtype)
        self._writer = TokenWriter(self._model, len(self._tokenizer))
        self._closing = "" if frame is None else frame.closing
        config = self._model.config
        self._ends = {True: TurnEnds(config, self._tokenizer, frame), False: TurnEnds(config, self._tokenizer)}

    def given(self, question: EvaluationQuestion) -> list[int]:
        """Return the tokens of a question, with a BOS token before a text where the tokenizer adds one."""
        return question_tokens(question, self._folder, self._tokenizer)

    def greedy(
        self, questions: Sequence[EvaluationQuestion], on_step: Callable[[int], None] = lambda step: None
    ) -> list[Written]:
        """Return the answers of the likeliest tokens, all written in one batch; `on_step` is called before each."""
        (is_chat,) = {each.is_chat for each in questions}
        ends = self._ends[is_chat]

        def write(at_once: int) -> list[list[int]]:
            return [
                ids
                for start in range(0, len(questions), at_once)
                for ids in self._writer.write(
                    [self.given(each) for each in questions[start : start + at_once]],
                    most=[self._most] * len(questions[start : start + at_once]),
                    ends=ends.tokens,
                    on_step=on_step,
                )
            ]

        return [self._finished(ids, ends) for ids in AtOnce(len(questions)).run(write)]

    @torch.inference_mode()
    def states(self, question: EvaluationQuestion, answer: Sequence[int], *, ended: bool) -> Tensor:
        """Return the last block's output at every position that predicts a token of an answer, in main memory.

        With `ended`, the last position predicts the end of the answer. The shape is [1, predictions, hidden_size], or
        as the model's blocks have it.
        """
        given = self.given(question)
        ids = [*given, *answer]
        count = len(answer) + ended
        seen: list[Any] = []
        blocks: Any = self._model.get_submodule(self._folder.family.blocks)
        handle = blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
        with removed_after([handle]):
            self._model(input_ids=torch.tensor([ids], device=self._model.device), use_cache=False, logits_to_keep=1)
        output: Tensor = seen[0][0] if isinstance(seen[0], tuple | list) else seen[0]
        dimension = -3 if output.shape[-2] == 1 and len(ids) > 1 else -2  # some models have time before batch
        return output.narrow(dimension, len(given) - 1, count).contiguous().cpu()

    def _finished(self, ids: list[int], ends: TurnEnds) -> Written:
        """Return an answer up to the words that end a turn, where the model has spelled them out."""
        text = ends.text(ids)
        turn = ends.turn(ids, self._closing)
        if turn == text:
            return Written(ids, len(ids) < self._most)
        count = next(count for count in range(len(ids) + 1) if len(ends.text(ids[:count])) >= len(turn))
        return Written(ids[:count], ended=True)


def question_tokens(question: EvaluationQuestion, folder: ModelFolder, tokenizer: Any) -> list[int]:
    """Return the tokens of a question for one model.

    A text begins with a BOS token where the tokenizer adds one; a chat template writes its own.
    """
    ids = token_ids(question.text, tokenizer)
    begins = not ids or (not question.is_chat and starts_with_bos(tokenizer))
    return [*([first_token(folder.config, tokenizer)] if begins else []), *ids]
