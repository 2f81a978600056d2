"""Client of the model hub: the files of a revision, and ranges of their bytes.

Every request has a timeout. Errors distinguish gated repositories, missing ones (which may be private: the hub does not
tell) and a hub that cannot be reached, where a retry may help.

The hub's library is imported at its first use: the API, the dispatcher and workers import this module at every start,
and most of them never ask the hub.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from core.pipeline.reports.source_card import licence_id
from core.service.sources.hub_errors import translated_errors
from core.service.sources.hub_names import Kind, is_commit
from core.service.sources.hub_outage import HubOutage
from core.service.sources.references import FileReference
from core.settings import Settings
from secateur_wire.errors import HubUnavailable
from secateur_wire.teams import TokenOwner

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

TIMEOUT_SECONDS = 10.0
"""Seconds to connect, and between two pieces of an answer."""
_LISTING_SECONDS = 60.0
"""Time for which the commit of a public repository's branch is cached."""
_MOST_LISTINGS = 1000


@dataclass(frozen=True)
class HubListing:
    """Files of a repository at a commit. Unless it `is_public`, only the requesting team may see it.

    `configs` are the configurations in a dataset's card, with their splits; `licence` is the id in any card.
    """

    commit: str
    files: tuple[FileReference, ...]
    configs: dict[str, tuple[str, ...]]
    is_public: bool
    licence: str | None = None


@dataclass(frozen=True)
class HubCredential:
    """A token of the hub, and its owner."""

    token: str = field(repr=False)
    owner: TokenOwner


class _PublicListings:
    """Cache of listings of public repositories for a short time: a sweep with many jobs asks the hub once."""

    def __init__(self) -> None:
        self._listings: dict[tuple[Kind, str, str | None], tuple[float, HubListing]] = {}
        self._lock = threading.Lock()

    def find(self, key: tuple[Kind, str, str | None]) -> HubListing | None:
        with self._lock:
            when, known = self._listings.get(key, (0.0, None))
        return known if time.monotonic() < when + _LISTING_SECONDS else None

    def add(self, key: tuple[Kind, str, str | None], listing: HubListing) -> None:
        with self._lock:
            if len(self._listings) >= _MOST_LISTINGS:
                self._listings.clear()
            self._listings[key] = (time.monotonic(), listing)


class Hub:
    """Hub client, safe to share between threads. It sends no token, except after `with_credential`.

    With an `outage`, a hub that is unavailable is not asked again and again.
    """

    def __init__(self, settings: Settings, outage: HubOutage | None = None) -> None:
        self._outage = outage
        self._endpoint = settings.hub_endpoint.rstrip("/")
        self._credential: HubCredential | None = None
        self._listings = _PublicListings()

    def with_credential(self, credential: HubCredential | None) -> "Hub":
        """Return the same hub with a token for its requests; both share the cache of public listings."""
        hub = copy(self)
        hub._credential = credential
        return hub

    @property
    def _token(self) -> str | Literal[False]:
        # False: the library must not use a token from elsewhere.
        return self._credential.token if self._credential else False

    @property
    def _owner(self) -> TokenOwner | None:
        return self._credential.owner if self._credential else None

    def _watched(self, repository: str) -> AbstractContextManager[None]:
        return nullcontext() if self._outage is None else self._outage.watched(repository)

    def listing(self, kind: Kind, repository: str, revision: str | None) -> HubListing:
        """Return the files of a revision (null: the default branch), and check that they may be read.

        Access is checked each time unless the repository is public. Raises UnknownModel or UnknownDataset, GatedModel
        or UnusableDataset, HubUnavailable.
        """
        key = (kind, repository, revision)
        known = self._listings.find(key)
        if known is not None:
            return known
        listing = self._ask(kind, repository, revision)
        if listing.is_public:
            self._listings.add(key, listing)
        return listing

    def _ask(self, kind: Kind, repository: str, revision: str | None) -> HubListing:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint, token=self._token)
        with translated_errors(kind, repository, revision, owner=self._owner):
            with self._watched(repository):
                info = api.repo_info(
                    repository, repo_type=kind, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
                )
                if info.gated:  # The facts of a gated repository are public, its files are not.
                    api.auth_check(repository, repo_type=kind)
            if not is_commit(info.sha):
                raise HubUnavailable(f"the hub at {self._endpoint} names no commit for {repository}", param=kind)
            files = tuple(_file(file) for file in getattr(info, "siblings", None) or ())
            is_public = info.private is False and info.gated is False  # As far as the hub reports it.
            card = getattr(info, "card_data", None)
            licence = licence_id(getattr(card, "license", None))
            return HubListing(str(info.sha), files, _configs(card), is_public, licence)

    def open_range(self, kind: Kind, repository: str, commit: str, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end`; fewer where the connection ends early without an error.

        Raises as `listing`, and UnusableModel kinds; the first piece is requested when it is iterated.
        """
        if end <= start:
            return
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazily

        url = hf_hub_url(repository, path, repo_type=kind, revision=commit, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._token) | {
            "range": f"bytes={start}-{end - 1}",
            "accept-encoding": "identity",
        }
        with (
            translated_errors(kind, repository, commit, path, owner=self._owner),
            self._watched(repository),
            get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as response,
        ):
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else start  # a server that does not know ranges sends all
            left = end - start
            for chunk in response.iter_bytes():  # as they arrive: gathering more would lose it with the connection
                piece = chunk[skip : skip + left]
                skip = max(0, skip - len(chunk))
                left -= len(piece)
                if piece:
                    yield piece
                if left == 0:
                    return


def _file(file: "RepoSibling") -> FileReference:
    """Return a file of the hub's listing; raises ValueError for a size below 0, and pydantic's ValidationError."""
    if file.size is not None and file.size < 0:
        raise ValueError(f"{file.rfilename} has {file.size} bytes")
    return FileReference(
        path=file.rfilename,
        bytes=file.size or 0,
        sha256=file.lfs.sha256 if file.lfs else None,
        git_blob=None if file.lfs else file.blob_id,
    )


def _configs(card: object) -> dict[str, tuple[str, ...]]:
    """Return the configurations and splits in a dataset's card; anyone may write one, so its form is not trusted.

    A configuration without an explicit list of splits is left out.
    """
    declared = getattr(card, "configs", None)
    configs: dict[str, tuple[str, ...]] = {}
    for each in declared if isinstance(declared, list) else ():
        name = each.get("config_name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            continue
        files = each.get("data_files")
        splits = [file.get("split") for file in files if isinstance(file, dict)] if isinstance(files, list) else []
        configs[name] = tuple(split for split in splits if isinstance(split, str))
    return configs
