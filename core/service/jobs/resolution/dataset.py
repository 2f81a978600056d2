"""Look-up of a dataset by its name: a registered one, one of the hub, or one that the model itself generates."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, TypeVar

from sqlalchemy import ColumnElement

from core.service.jobs.resolution.context import RequestContext
from core.service.registry.service import find_row, names
from core.service.registry.tables import DatasetRow
from core.service.sources.hub_datasets import SHORT_NAMES, HubDataset, is_hub_dataset
from core.service.sources.references import ImageReference, TextReference, Use
from core.validation import nearest_hint
from secateur_wire import gone
from secateur_wire.errors import UnknownDataset

SELF: Final = "self"
"""Name of the dataset that the model itself generates."""

Reference = TypeVar("Reference", bound=TextReference | ImageReference)


@dataclass(frozen=True)
class DatasetNeeds(ABC, Generic[Reference]):
    """Requirements of a dataset: its `use`, and how many `samples`, where null means all there are.

    `param` is its path in the body. A refusal names the datasets that `is_of_kind` selects as `registered`, and the
    `other_names` that a job can give.
    """

    use: Use
    param: str
    samples: int | None

    is_of_kind: ClassVar[ColumnElement[bool]]
    registered: ClassVar[str]
    other_names: ClassVar[str]

    @property
    def part(self) -> str:
        """Return the part of the body that needs it: calibration, evaluation, recovery."""
        return self.param.partition(".")[0]

    @abstractmethod
    def refer_to_row(self, row: DatasetRow) -> Reference:
        """Return the reference to a registered dataset; raises the error that says why it does not fit."""

    @abstractmethod
    def refer_to_hub(self, name: str, dataset: HubDataset) -> Reference:
        """Return the reference to a dataset of the hub."""

    @abstractmethod
    def refer_to_model(self) -> Reference:
        """Return the reference to what the model itself generates; raises the error that says why it cannot."""


def resolve_dataset(context: RequestContext, name: str, needs: DatasetNeeds[Reference]) -> Reference:
    """Return the dataset that a name stands for.

    Raises UnknownDataset, UnusableDataset where it is of another kind, TooLittleText, TooFewImages, InvalidRequest, and
    errors of its look-up on the hub.
    """
    row = find_row(context.session, DatasetRow, context.team_id, name)
    if row is not None:
        return needs.refer_to_row(row)
    if name == SELF:
        return needs.refer_to_model()
    require_dataset(name, needs.param)
    if is_hub_dataset(name):
        return needs.refer_to_hub(name, context.hub.dataset(name, needs.use, needs.param))
    known = names(context.session, DatasetRow, context.team_id, needs.is_of_kind)
    raise UnknownDataset(
        f"{needs.param}: there is no dataset {name!r}; {needs.registered}: {', '.join(known) or 'none'}. Or name "
        f"{needs.other_names}{nearest_hint(name, [*known, *SHORT_NAMES, SELF])}",
        param=needs.param,
    )


def require_dataset(name: str, param: str) -> None:
    """Raise UnknownDataset, with what to use instead, where a name stood for a dataset that has left."""
    if successor := gone.DATASETS.get(name.partition(":")[0]):
        raise UnknownDataset(f"{param}: the dataset {name!r} has left: {successor}", param=param)


def row_facts(row: DatasetRow, *reading: str) -> dict[str, object]:
    """Return the fields of a reference to a registered dataset: how it is read, and its place."""
    facts = {name: getattr(row, name) for name in ("name", "format", *reading)}
    if row.prefix is None:
        return facts | {"path": row.path, "sha256": row.sha256}
    assert row.files, row.id
    return facts | {"prefix": row.prefix, "file": row.files[0]}


def hub_facts(name: str, dataset: HubDataset, use: Use) -> dict[str, object]:
    """Return the fields that every reference to a dataset of the hub has."""
    taken = ("repository", "revision", "config", "split", "is_public")
    return {"name": name, "use": use, **{field: getattr(dataset, field) for field in taken}}
