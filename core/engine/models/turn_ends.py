"""Ends of turns that a model writes in its own chat template."""

from collections.abc import Sequence

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from core.engine.datasets.chat.rendered import Frame
from core.engine.datasets.token_ids import token_ids
from core.engine.models.generation import end_tokens


class TurnEnds:
    """Ends of a turn: tokens, and the template's words after a turn where no token of their own stands for them.

    Without a `frame` there are only the end tokens of the model. `tokens` are all tokens that end a turn.
    """

    def __init__(
        self, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, frame: Frame | None = None
    ) -> None:
        self._tokenizer = tokenizer
        text_ends = end_tokens(config, tokenizer)
        ends = {*text_ends, *tokenizer.get_added_vocab().values()}
        words = () if frame is None else (frame.between, frame.closing)
        firsts = {each: token_ids(each, tokenizer)[:1] for each in words}
        self.tokens = text_ends | {token for first in firsts.values() for token in first if token in ends}
        self._spelled = {each for each, first in firsts.items() if not {*first} & ends}

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return str(self._tokenizer.decode([*ids], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def turn(self, ids: Sequence[int], after: str) -> str:
        """Return the text of a turn, up to the first line of the words `after` it if the model spells them out."""
        text = self.text(ids)
        first = "" if after not in self._spelled else after.strip().partition("\n")[0].strip()
        return text.partition(first)[0] if first else text
