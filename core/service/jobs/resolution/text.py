"""Resolution of dataset names: a registered text, a dataset of the hub, or text the model itself generates."""

from dataclasses import dataclass

from core.service.jobs.resolution.context import RequestContext
from core.service.registry.service import find_row, names
from core.service.registry.tables import DatasetRow
from core.service.sources.hub_datasets import is_hub_dataset
from core.service.sources.references import FileReference, FileText, HubText, SelfText, StoredText, TextReference, Use
from secateur_wire.errors import InvalidRequest, TooLittleText, UnknownDataset, UnusableDataset

SELF = "self"
_EVALUATION_SEED = 2**31
"""Added to the seed of text generated to evaluate on: calibration's seeds are smaller, so the two never share one."""
TRAINING_SEED = 2**32
"""Added to the seed of text generated to train on, for the same reason."""
_MOST_BYTES_PER_CHARACTER = 4
_CHARACTERS_PER_TOKEN = 16
"""Characters fetched of a hub dataset for every token: English has about 4, and small vocabularies fewer."""
_LEAST_CHARACTERS = 4_000_000
"""Fetched of a hub dataset at least: jobs of different sizes then share what was fetched, and the usual evaluation
texts are fetched whole."""


@dataclass(frozen=True)
class TextNeeds:
    """Requirements of a text: its `use`, its length in tokens, and how many `samples`.

    `param` is its path in the body; `samples` null means all there are, or `most` of them where no more are used.
    """

    use: Use
    param: str
    samples: int | None
    sequence_length: int
    seed: int
    most: int | None = None

    @property
    def part(self) -> str:
        """Return the part of the body that needs it: calibration, evaluation, recovery."""
        return self.param.partition(".")[0]


def resolve_text(context: RequestContext, name: str, needs: TextNeeds) -> TextReference:
    """Return the text that a name stands for.

    Raises UnknownDataset, UnusableDataset where it holds images, TooLittleText, InvalidRequest, and errors of its
    look-up on the hub.
    """
    row = find_row(context.session, DatasetRow, context.team_id, name)
    if row is not None:
        if row.images is not None:
            raise UnusableDataset(
                f"{needs.param}: {name!r} holds images, and a language model reads text: name a text", param=needs.param
            )
        _check_enough(row, needs)
        return _registered(row)
    if name == SELF:
        return generated_text(needs)
    if is_hub_dataset(name):
        dataset = context.hub.dataset(name, needs.use, needs.param)
        samples = needs.samples or needs.most
        tokens = None if samples is None else samples * needs.sequence_length
        return HubText(
            name=name,
            repository=dataset.repository,
            revision=dataset.revision,
            config=dataset.config,
            split=dataset.split,
            use=needs.use,
            characters=None if tokens is None else max(_LEAST_CHARACTERS, tokens * _CHARACTERS_PER_TOKEN),
            is_public=dataset.is_public,
        )
    known = ", ".join(names(context.session, DatasetRow, context.team_id, DatasetRow.images.is_(None))) or "none"
    raise UnknownDataset(
        f"{needs.param}: there is no dataset {name!r}; registered: {known}. Or name one of the hub (wikitext, c4, "
        "org/name[:config[:split]]), or 'self' for text the model generates",
        param=needs.param,
    )


def _registered(row: DatasetRow) -> TextReference:
    if row.prefix is not None:
        assert row.files, row.id
        return StoredText(
            name=row.name,
            prefix=row.prefix,
            file=FileReference.model_validate(row.files[0]),
            format=row.format,
            text_field=row.text_field,
        )
    facts = {name: getattr(row, name) for name in ("name", "path", "format", "text_field", "sha256")}
    return FileText.model_validate(facts)


def generated_text(needs: TextNeeds) -> SelfText:
    """Return the text that the model is to generate; raises InvalidRequest without a number of samples."""
    if needs.samples is None:
        raise InvalidRequest(
            f"{needs.part}.samples: {SELF!r} is text made for the job, so say how many samples of it are needed",
            param=f"{needs.part}.samples",
        )
    return SelfText(
        name=SELF,
        samples=needs.samples,
        sequence_length=needs.sequence_length,
        seed=needs.seed + (_EVALUATION_SEED if needs.use == "evaluation" else 0),
    )


def _check_enough(row: DatasetRow, needs: TextNeeds) -> None:
    """Require enough text: a token is at least one byte, so shorter text cannot suffice. The runner counts exactly."""
    samples = needs.samples or 1
    needed = samples * needs.sequence_length
    most = _MOST_BYTES_PER_CHARACTER * row.characters
    there = most if row.format == "parquet" else min(most, row.bytes)  # a Parquet file is compressed
    if there < needed:
        raise TooLittleText(
            f"{needs.part}: {row.name!r} is too short: {needed} tokens are needed ({samples} × "
            f"{needs.sequence_length}), {there} bytes of text are there",
            param=f"{needs.part}.samples",
        )
