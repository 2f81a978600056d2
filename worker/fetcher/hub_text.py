"""Split of a hub dataset as JSON lines, by the `datasets` library: streamed up to a number of characters.

Only data formats are read; the library runs no code of a repository. The library may load torch, so it is imported only
in the fetcher's process.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from core.engine.datasets.chat.conversations import CHAT_FIELDS, is_conversation, without_nulls
from core.engine.datasets.formats import CHAT_JSONL
from core.service.sources.hub import HubCredential
from core.service.sources.hub_errors import translated_errors
from core.service.sources.references import HubImages, HubText
from secateur_wire.errors import UnknownDataset, UnusableDataset
from worker.fetcher.protocol import MOST_CHARACTERS, FetchedText

_FORMATS = ("arrow", "csv", "json", "parquet", "text")
_DEFAULT_SPLITS = {"calibration": ("train",), "evaluation": ("test", "validation")}
_TEXT_FIELD = "text"

_Row = dict[str, Any]
_Choose = Callable[[Iterable[_Row], HubText], Iterator[_Row]]


def read_hub_text(text: HubText, target: Path, credential: HubCredential | None) -> FetchedText:
    """Write the text's documents or conversations, one JSON object per line.

    Raises UnknownDataset if the configuration or the split does not exist, UnusableDataset if it is not text, and
    HubUnavailable.
    """
    return _read(text, target, credential, _documents)


def read_hub_rows(text: HubText, target: Path, credential: HubCredential | None) -> FetchedText:
    """Write all columns of the rows, one JSON object per line; raises the errors of `read_hub_text`."""
    return _read(text, target, credential, lambda rows, text: iter(rows))


def _read(text: HubText, target: Path, credential: HubCredential | None, choose: _Choose) -> FetchedText:
    with translate_dataset_errors(text, credential):
        split = open_split(text, credential, _FORMATS)
        rows, first = choose(split.rows, text), None
        first = next(rows, None)
        rows = rows if first is None else chain([first], rows)
        documents, characters, sha256 = _write(rows, target, text)
    if first is None:
        raise UnusableDataset(f"{text.name}: split {split.name!r} holds no text", param="dataset")
    return FetchedText(
        sha256=sha256,
        documents=documents,
        characters=characters,
        origin=split.origin,
        format=CHAT_JSONL if choose is _documents and _TEXT_FIELD not in first else "jsonl",
    )


@dataclass(frozen=True)
class Split:
    """Split of a hub dataset, streamed; `origin` names it, for the report."""

    name: str
    rows: datasets.IterableDataset
    origin: dict[str, Any]


def open_split(reference: HubText | HubImages, credential: HubCredential | None, formats: Sequence[str]) -> Split:
    """Open a split of a hub dataset; call it within `translate_dataset_errors`.

    Raises UnusableDataset if the dataset is stored in none of these formats, and UnknownDataset if it has no such
    split.
    """
    # The HTTP client below retries by itself, and so does the next attempt.
    datasets.config.STREAMING_READ_MAX_RETRIES = 1
    builder = datasets.load_dataset_builder(
        reference.repository,
        reference.config,
        revision=reference.revision,
        token=credential.token if credential else False,
    )
    _check_format(builder, reference, formats)
    split = _choose_split(builder, reference)
    origin = {
        "kind": "hub",
        "repository": reference.repository,
        "revision": reference.revision,
        "config": builder.config.name,
        "split": split,
    }
    return Split(split, builder.as_streaming_dataset(split=split), origin)


def _check_format(builder: datasets.DatasetBuilder, reference: HubText | HubImages, formats: Sequence[str]) -> None:
    modules = [each.__module__.split(".") for each in type(builder).__mro__]
    kinds = [parts[2] for parts in modules if parts[:2] == ["datasets", "packaged_modules"] and len(parts) > 2]
    if not kinds or kinds[0] not in formats:
        raise UnusableDataset(
            f"{reference.name} is stored as {kinds[0] if kinds else 'something else'}; one of {', '.join(formats)} is "
            "needed",
            param="dataset",
        )


def _choose_split(builder: datasets.DatasetBuilder, reference: HubText | HubImages) -> str:
    files = builder.config.data_files
    there = [str(name) for name in (files or builder.info.splits or {})]
    if reference.split is not None:
        if reference.split not in there:
            raise UnknownDataset(
                f"{reference.name}: there is no split {reference.split!r}; the splits are {', '.join(there)}",
                param="dataset",
            )
        return reference.split
    for name in _DEFAULT_SPLITS[reference.use]:
        if name in there:
            return name
    raise UnknownDataset(
        f"{reference.name} has none of the usual splits for {reference.use} "
        f"({', '.join(_DEFAULT_SPLITS[reference.use])}): name one, as "
        f"{reference.repository}:{builder.config.name}:SPLIT, where SPLIT is {' or '.join(there)}",
        param="dataset",
    )


def _documents(rows: Iterable[_Row], text: HubText) -> Iterator[_Row]:
    """Yield the texts of the rows that are not empty, or every row of a set of conversations as it is."""
    field: str | None = None
    is_chat: bool | None = None
    for row in rows:
        if is_chat is None:
            is_chat = not isinstance(row.get(_TEXT_FIELD), str) and is_conversation(row)
        if is_chat:
            yield {name: without_nulls(row[name]) for name in CHAT_FIELDS if row.get(name) is not None}
            continue
        field = field or _text_field(row, text)
        document = row.get(field)
        if isinstance(document, str) and document.strip():
            yield {"text": document}


def _write(rows: Iterable[_Row], target: Path, text: HubText) -> tuple[int, int, str]:
    documents = characters = 0
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for row in rows:
            documents += 1
            characters += sum(map(_length, row.values()))
            if text.characters is None and characters > MOST_CHARACTERS:
                raise UnusableDataset(
                    f"{text.name} holds more than {MOST_CHARACTERS} characters: ask for a number of samples",
                    param="dataset",
                )
            line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            digest.update(line)
            file.write(line)
            if text.characters is not None and characters >= text.characters:
                break
    return documents, characters, digest.hexdigest()


def _length(value: object) -> int:
    """Return the number of characters of a text, or of a conversation's turns."""
    if isinstance(value, list):
        return sum(len(str(each.get("content") or "")) for each in value if isinstance(each, dict))
    return len(value) if isinstance(value, str) else 0


def _text_field(row: Mapping[str, object], text: HubText) -> str:
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if _TEXT_FIELD in strings:
        return _TEXT_FIELD
    if len(strings) == 1:
        return strings[0]
    raise UnusableDataset(
        f"{text.name} has no column {_TEXT_FIELD!r}, and {len(strings)} other columns have text "
        f"({', '.join(strings[:10])}), so it is not clear which one to use",
        param="dataset",
    )


@contextmanager
def translate_dataset_errors(reference: HubText | HubImages, credential: HubCredential | None) -> Iterator[None]:
    """Turn errors of the `datasets` library into errors of the error tree."""
    owner = credential.owner if credential else None
    with translated_errors("dataset", reference.repository, reference.revision, owner=owner):
        try:
            yield
        except MemoryError as error:
            raise UnusableDataset(
                f"{reference.name} takes more memory to read than a fetcher may (SECATEUR_FETCH_MEMORY_BYTES): it needs"
                " smaller pages and row groups",
                param="dataset",
            ) from error
        except DatasetNotFoundError as error:
            raise UnknownDataset(f"{reference.name}: {_short(error)}", param="dataset") from error
        except (ValueError, DatasetsError, FileNotFoundError) as error:
            if isinstance(error, HfHubHTTPError):
                raise
            raise UnusableDataset(f"{reference.name} cannot be read: {_short(error)}", param="dataset") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
