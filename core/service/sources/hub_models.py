"""Models of the hub, described before they are fetched: from their configs and the headers of their weight files."""

from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from core.engine.architectures.description import Source
from core.engine.architectures.sandboxed import Slot, describe_sandboxed, weight_names
from core.engine.checkpoints.files import COMPANIONS, INDEX_FILE, PICKLES
from core.service.sources.header_only_folder import READ_IN_FULL, require_readable, write_header_only_folder
from core.service.sources.hub import Hub, HubListing
from core.service.sources.references import FileReference
from secateur_wire.errors import GatedModel, ModelTooLarge, UnsupportedArchitecture, UnusableModel


@dataclass(frozen=True)
class HubRevision:
    """A model repository at one commit: its description, the files to fetch, and the licence in its card."""

    repository: str
    revision: str
    description: Source
    files: tuple[FileReference, ...]
    is_public: bool
    licence: str | None = None


def describe_hub_model(
    hub: Hub, repository: str, listing: HubListing, *, max_bytes: int, slot: Slot = nullcontext
) -> HubRevision:
    """Describe a model of the hub; only configs, chat template, index and headers are read.

    Children read them, each in a slot. Raises what `Hub.open_range` and `describe_sandboxed` do, and ModelTooLarge.
    """
    there = {file.path: file for file in listing.files}

    def read(file: FileReference, start: int, end: int) -> bytes:
        return b"".join(hub.open_range("model", repository, listing.commit, file.path, start, end))

    with TemporaryDirectory(prefix="secateur-hub-") as temporary:
        folder = Path(temporary, repository.partition("/")[2])
        folder.mkdir()
        try:
            write_header_only_folder(folder, [there[name] for name in READ_IN_FULL if name in there], read)
            for name in there:
                if "/" not in name and any(fnmatchcase(name, pattern) for pattern in PICKLES):
                    (folder / name).touch()  # Listed so that it is refused by name.
            weights = [there[name] for name in weight_names(folder, slot) if name in there]
            files = [there[name] for name in (*COMPANIONS, INDEX_FILE) if name in there] + weights
            for file in files:
                require_readable(file)
            total = sum(file.bytes for file in files)
            if total > max_bytes:
                raise ModelTooLarge(
                    f"it has {total} bytes, but this service fetches at most {max_bytes}", param="model"
                )
            write_header_only_folder(folder, weights, read)
            description = describe_sandboxed(folder, slot)
        except (UnusableModel, UnsupportedArchitecture) as error:
            if not isinstance(error, GatedModel):
                error.message = f"{repository}@{listing.commit[:12]}: {error.message}"
            raise
    return HubRevision(repository, listing.commit, description, tuple(files), listing.is_public, listing.licence)
