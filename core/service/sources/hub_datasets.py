"""Datasets of the hub: their names, and the commit, configuration and split of a name."""

from dataclasses import dataclass

from core.service.sources.hub import Hub
from core.service.sources.hub_names import split_reference
from core.service.sources.references import Use
from secateur_wire.errors import HubUnavailable, UnknownDataset


@dataclass(frozen=True)
class HubDatasetName:
    """Parts of `org/name[@revision][:config[:split]]`. A null part means the repository's default."""

    repository: str
    revision: str | None
    config: str | None
    split: str | None


@dataclass(frozen=True)
class HubDataset:
    """A dataset at one commit. `bytes` is the total of all the repository's files."""

    repository: str
    revision: str
    config: str | None
    split: str | None
    bytes: int
    is_public: bool


_HUB_IS_AWAY_SECONDS = 600
"""Retry-After for missing questions: longer than clients wait, because a local copy helps at once."""


def questions_unavailable(task: str, error: HubUnavailable, param: str) -> HubUnavailable:
    """Return the error for a task whose questions are neither in a local copy nor available from the hub."""
    return HubUnavailable(
        f"{param}: there is no copy of the questions of {task} here, and {error.message}. Without the hub: `secateur "
        "samples --tasks`, once, copies the questions of all tasks into the home of this service",
        param=param,
        retry_after=_HUB_IS_AWAY_SECONDS,
    )


SHORT_NAMES = {
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1", {"calibration": "train", "evaluation": "test"}),
    "c4": ("allenai/c4", "en", {"calibration": "train", "evaluation": "validation"}),
}
"""Common datasets by their short names: repository, configuration, and the split for each use."""


def is_hub_dataset(name: str) -> bool:
    return name in SHORT_NAMES or "/" in name


def parse_dataset_name(name: str, use: Use, param: str) -> HubDatasetName:
    """Parse the name of a hub dataset; raises UnknownDataset for another form."""
    if name in SHORT_NAMES:
        repository, config, splits = SHORT_NAMES[name]
        return HubDatasetName(repository, None, config, splits[use])
    reference, *parts = name.split(":")
    if len(parts) > 2:
        raise UnknownDataset(
            f"{param} {name!r} is not a dataset of the hub: it has the form org/name[:config[:split]]", param=param
        )
    repository, revision = split_reference(reference, "dataset", param)
    config, split = [*parts, "", ""][:2]
    return HubDatasetName(repository, revision, config or None, split or None)


def find_hub_dataset(hub: Hub, name: str, use: Use, param: str) -> HubDataset:
    """Ask the hub for a dataset. Raises an error for a configuration or split that the dataset's card does not list.

    Raises UnknownDataset, UnusableDataset, HubUnavailable.
    """
    reference = parse_dataset_name(name, use, param)
    try:
        listing = hub.listing("dataset", reference.repository, reference.revision)
    except UnknownDataset as error:
        error.param = param
        raise
    configs = listing.configs
    if reference.config is not None and configs and reference.config not in configs:
        known = ", ".join(sorted(configs)[:20])
        raise UnknownDataset(
            f"{param} {name!r}: {reference.repository} has no configuration {reference.config!r}; it has {known}",
            param=param,
        )
    splits = configs.get(reference.config or "default", ())
    if reference.split is not None and splits and reference.split not in splits:
        raise UnknownDataset(
            f"{param} {name!r}: there is no split {reference.split!r}; the splits are {', '.join(splits)}", param=param
        )
    size = sum(file.bytes for file in listing.files)
    return HubDataset(reference.repository, listing.commit, reference.config, reference.split, size, listing.is_public)
