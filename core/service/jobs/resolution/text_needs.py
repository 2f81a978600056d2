"""Requirements of a text that a job on a language model reads."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import ColumnElement

from core.engine.datasets.formats import CHAT_FORMATS
from core.service.jobs.resolution.dataset import SELF, DatasetNeeds, hub_facts, row_facts
from core.service.registry.tables import DatasetRow
from core.service.sources.hub_datasets import HubDataset
from core.service.sources.references import (
    AnsweredText,
    FileText,
    HubText,
    SelfText,
    StoredText,
    TextReference,
)
from secateur_wire.chat import Answers, Shape
from secateur_wire.errors import InvalidRequest, TooLittleText, UnusableDataset

_EVALUATION_SEED = 2**31
"""Added to the seed of generated evaluation text: calibration's seeds are smaller, so the two never share one."""
_MOST_BYTES_PER_CHARACTER = 4
_CHARACTERS_PER_TOKEN = 16
"""Characters to fetch from a hub dataset per token: English has about 4, and small vocabularies fewer."""
_LEAST_CHARACTERS = 4_000_000
"""Minimum number of characters to fetch from a hub dataset. Jobs of different sizes then share the fetched text, and
the usual evaluation texts are fetched whole."""


@dataclass(frozen=True)
class TextNeeds(DatasetNeeds[TextReference]):
    """Requirements of a text, whose length is counted in tokens; without `samples`, no more than `most` are used.

    `shape` is the shape of a text that the model writes; `answers` says who answers a set of conversations.
    """

    sequence_length: int
    seed: int = 0
    most: int | None = None
    shape: Shape | None = None
    answers: Answers | None = None

    is_of_kind: ClassVar[ColumnElement[bool]] = DatasetRow.images.is_(None)
    registered: ClassVar[str] = "registered"
    other_names: ClassVar[str] = (
        "one of the hub (wikitext, c4, org/name[:config[:split]]), or 'self' for text the model generates"
    )

    def refer_to_row(self, row: DatasetRow) -> TextReference:
        is_chat = row.format in CHAT_FORMATS
        if row.images is not None:
            raise UnusableDataset(
                f"{self.param}: {row.name!r} has images, but a language model reads text: name a text",
                param=self.param,
            )
        if self.answers is not None and not is_chat:
            raise InvalidRequest(
                f"{self.part}.answers: {row.name!r} is a text ({row.format}), and only conversations have answers: "
                "leave it out, or register the set with format chat_jsonl or chat_parquet",
                param=f"{self.part}.answers",
            )
        if not is_chat:  # a template adds words, so that the number of bytes says nothing about conversations
            _check_enough(row, self)
        kind: type[FileText | StoredText] = FileText if row.prefix is None else StoredText
        return self._answered(row.name, kind.model_validate(row_facts(row, "text_field")))

    def _answered(self, name: str, text: FileText | StoredText | HubText) -> TextReference:
        """Return a reference to conversations with the answers that are asked for."""
        if self.answers != "self":
            return text
        samples = self.samples or self.most
        if samples is None:
            raise InvalidRequest(
                f"{self.part}.samples: the model writes the answers for the job, so give the number of samples",
                param=f"{self.part}.samples",
            )
        return AnsweredText(
            name=name, prompts=text, samples=samples, sequence_length=self.sequence_length, seed=self.seed
        )

    def refer_to_hub(self, name: str, dataset: HubDataset) -> TextReference:
        samples = self.samples or self.most
        characters = None
        if samples is not None:
            characters = max(_LEAST_CHARACTERS, samples * self.sequence_length * _CHARACTERS_PER_TOKEN)
        text = HubText.model_validate(hub_facts(name, dataset, self.use) | {"characters": characters})
        return self._answered(name, text)

    def refer_to_model(self) -> SelfText:
        if self.answers is not None:
            raise InvalidRequest(
                f"{self.part}.answers is for a set of conversations; of {SELF!r} the model writes everything: use "
                f'"shape": "chat" instead',
                param=f"{self.part}.answers",
            )
        if self.samples is None:
            raise InvalidRequest(
                f"{self.part}.samples: {SELF!r} is text that the model writes for the job, so give the number of "
                "samples",
                param=f"{self.part}.samples",
            )
        return SelfText(
            name=SELF,
            samples=self.samples,
            sequence_length=self.sequence_length,
            seed=self.seed + (_EVALUATION_SEED if self.use == "evaluation" else 0),
            shape=self.shape or "text",
        )


def _check_enough(row: DatasetRow, needs: TextNeeds) -> None:
    """Check the length in bytes: a token has at least one byte, so a shorter text cannot suffice.

    The runner counts exactly.
    """
    samples = needs.samples or 1
    needed = samples * needs.sequence_length
    most = _MOST_BYTES_PER_CHARACTER * row.characters
    # A Parquet file is compressed, so its size gives no bound.
    there = most if row.format == "parquet" else min(most, row.bytes)
    if there < needed:
        raise TooLittleText(
            f"{needs.part}: {row.name!r} is too short: it has {there} bytes of text, but {needed} tokens are needed "
            f"({samples} × {needs.sequence_length})",
            param=f"{needs.part}.samples",
        )
