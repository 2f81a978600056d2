"""Fetcher: `python -m worker.fetcher`, the process that downloads models and texts from hub and store to this node.

It reads one spec per line on stdin and writes JSON lines on stdout; the last line for each spec is its result or error.
Diagnostics go to stderr. It ends when stdin is closed. It is a separate process so that a signal ends a download at
once when a job is cancelled or drained. Partial downloads stay, and the next download resumes them. The fetcher has the
credentials of hub and store, and opens no model.
"""

import contextlib
import errno
import hashlib
import os
import signal
import sys
import traceback

from core.engine.models.memory_limit import memory_limited
from core.service.sources.hub import Hub, HubCredential
from core.service.sources.hub_access import open_access
from core.service.sources.hub_datasets import questions_unavailable
from core.service.sources.hub_names import Kind
from core.service.sources.references import (
    HubImages,
    HubModel,
    HubText,
    StoredImages,
    StoredModel,
    StoredText,
)
from core.settings import Settings
from core.storage import MANIFEST, open_store
from secateur_wire.base import JsonObject
from secateur_wire.errors import DiskFull, HubUnavailable, InternalError, NotFound, SecateurError, UnusableModel
from worker.fetcher.files import fetch_files, from_hub, from_store, require_readable
from worker.fetcher.protocol import (
    IMAGES_FILE,
    MOST_CHARACTERS,
    MOST_IMAGE_BYTES,
    TEXT_FILE,
    FetchedText,
    FetchGeneratedSpec,
    FetchImagesSpec,
    FetchModelSpec,
    FetchSpec,
    FetchTaskSpec,
    FetchTextSpec,
    fetch_specs,
    is_closed,
)
from worker.node_cache import NodeCache
from worker.runner.messages import ErrorMessage, LogMessage, ResultMessage

_BYTES_PER_CHARACTER = 2
"""Approximate bytes of a character in UTF-8; the size of a text is not known before it is downloaded."""
_GENERATED_BYTES = 64 * 2**20
_QUESTIONS_BYTES = 32 * 2**20

_messages = os.fdopen(os.dup(1), "w", buffering=1)


def log(message: str) -> None:
    _messages.write(LogMessage(level="info", message=message).model_dump_json() + "\n")


def waiting() -> None:
    log("waiting for another job on this machine that fetches the same")


def fetch(spec: FetchSpec) -> JsonObject:
    """Carry out a spec; its entry is then in the cache, unless the result says otherwise.

    Content from a hub may unpack to any size; the settings limit the memory that is used.
    """
    settings = Settings.model_validate(spec.settings)
    with memory_limited(settings.fetch_memory_bytes):
        return _fetch(spec, settings)


def _fetch(spec: FetchSpec, settings: Settings) -> JsonObject:
    cache = NodeCache(settings.cache_root, max_bytes=settings.cache_max_bytes)
    match spec:
        case FetchModelSpec(model=HubModel() as model):
            _fetch_hub_model(spec.key, model, _opened(spec, model, settings), settings, cache)
        case FetchModelSpec(model=StoredModel() as model):
            _fetch_stored_model(spec.key, model, settings, cache)
        case FetchTextSpec(text=HubText() as text):
            _fetch_hub_text(spec.key, text, _opened(spec, text, settings), cache)
        case FetchTextSpec(text=StoredText() as text):
            _fetch_stored(spec.key, text, TEXT_FILE, settings, cache)
        case FetchImagesSpec(images=HubImages() as images):
            _fetch_hub_images(spec.key, images, _opened(spec, images, settings), cache)
        case FetchImagesSpec(images=StoredImages() as images):
            _fetch_stored(spec.key, images, IMAGES_FILE, settings, cache)
        case FetchTaskSpec(questions=questions):
            _fetch_questions(spec.key, questions, _opened(spec, questions, settings), cache)
        case FetchGeneratedSpec():
            return {"found": _fetch_generated(spec, settings, cache)}
    return {}


def _opened(spec: FetchSpec, reference: HubModel | HubText | HubImages, settings: Settings) -> HubCredential | None:
    """Return the credential to use at the hub.

    For content that is not public, the hub is first asked whether the team may read it, since the files may be cached.
    """
    credential = open_access(spec.access, settings)
    if is_closed(reference):
        kind: Kind = "model" if isinstance(reference, HubModel) else "dataset"
        require_readable(
            Hub(settings).with_credential(credential),
            kind,
            reference.repository,
            reference.revision,
            timeout_seconds=settings.hub_patience_seconds,
        )
    return credential


def _fetch_hub_model(
    key: str, model: HubModel, credential: HubCredential | None, settings: Settings, cache: NodeCache
) -> None:
    size = sum(file.bytes for file in model.files)
    with cache.fill(key, size, on_waiting=waiting) as folder:
        if folder is None:
            return
        what = f"{model.name}@{model.revision[:12]}"
        log(f"fetching {what}: {size / 1e9:.2f} GB")
        hub, timeout_seconds = Hub(settings).with_credential(credential), settings.hub_patience_seconds
        one = from_hub(hub, "model", model.repository, model.revision, timeout_seconds=timeout_seconds)
        fetch_files(model.files, folder, one, what=what, log=log)


def _fetch_stored_model(key: str, model: StoredModel, settings: Settings, cache: NodeCache) -> None:
    size = sum(file.bytes for file in model.files) + (model.unpacked_bytes or 0)
    with cache.fill(key, size, on_waiting=waiting) as folder:
        if folder is None:
            return
        log(f"fetching {model.name}: {size / 1e9:.2f} GB")
        fetch_files(model.files, folder, from_store(open_store(settings), model.prefix), what=model.name, log=log)
        from secateur_wire.weights.packed import CorruptPackedFile, unpack_folder  # slow to load, and only needed here

        try:
            unpack_folder(folder)
        except CorruptPackedFile as error:
            raise UnusableModel(
                f"the packed artifact {model.name} cannot be unpacked: {error}", param="model"
            ) from error


def _fetch_stored(
    key: str, stored: StoredText | StoredImages, named: str, settings: Settings, cache: NodeCache
) -> None:
    """Copy the one file of an uploaded dataset into the cache, under the name `named`."""
    with cache.fill(key, stored.file.bytes, on_waiting=waiting) as folder:
        if folder is None:
            return
        fetch_files([stored.file], folder, from_store(open_store(settings), stored.prefix), what=stored.name, log=log)
        (folder / stored.file.path).rename(folder / named)


def _fetch_hub_text(key: str, text: HubText, credential: HubCredential | None, cache: NodeCache) -> None:
    most = text.characters or MOST_CHARACTERS
    with cache.fill(key, most * _BYTES_PER_CHARACTER, on_waiting=waiting) as folder:
        if folder is None:
            return
        from worker.fetcher.hub_text import read_hub_text  # slow to load, and only needed here

        log(f"fetching {text.name} ({text.repository}@{text.revision[:12]})")
        about = read_hub_text(text, folder / TEXT_FILE, credential)
        (folder / MANIFEST).write_text(about.model_dump_json(indent=2))


def _fetch_hub_images(key: str, images: HubImages, credential: HubCredential | None, cache: NodeCache) -> None:
    with cache.fill(key, min(images.bytes, MOST_IMAGE_BYTES), on_waiting=waiting) as folder:
        if folder is None:
            return
        from worker.fetcher.hub_images import read_hub_images  # slow to load, and only needed here

        log(f"fetching {images.name} ({images.repository}@{images.revision[:12]})")
        about = read_hub_images(images, folder / IMAGES_FILE, credential)
        (folder / MANIFEST).write_text(about.model_dump_json(indent=2))


def _fetch_questions(key: str, questions: HubText, credential: HubCredential | None, cache: NodeCache) -> None:
    with cache.fill(key, _QUESTIONS_BYTES, on_waiting=waiting) as folder:
        if folder is None:
            return
        from worker.fetcher.hub_text import read_hub_rows  # slow to load, and only needed here

        log(f"fetching {questions.name} ({questions.repository}@{questions.revision[:12]})")
        try:
            about = read_hub_rows(questions, folder / TEXT_FILE, credential)
        except HubUnavailable as error:
            raise questions_unavailable(questions.name, error, "evaluation.tasks") from error
        (folder / MANIFEST).write_text(about.model_dump_json(indent=2))


def _fetch_generated(spec: FetchGeneratedSpec, settings: Settings, cache: NodeCache) -> bool:
    """Fetch a generated text from the store; return False if it is missing or damaged."""
    store = open_store(settings)
    try:
        with cache.fill(spec.key, _GENERATED_BYTES, on_waiting=waiting) as folder:
            if folder is None:
                return True
            for name in (MANIFEST, TEXT_FILE):
                store.fetch(spec.prefix, name, folder / name)
            about = FetchedText.model_validate_json((folder / MANIFEST).read_bytes())
            with (folder / TEXT_FILE).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != about.sha256:
                    raise ValueError("the fetched text is not the stored one")
    except (NotFound, ValueError):
        return False
    return True


def main() -> int:
    """Carry out one spec after the other, and send the result or the error of each."""
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once, without waiting for threads
    for line in sys.stdin.buffer:
        _messages.write(_outcome(line).model_dump_json() + "\n")
    return 0


def _outcome(line: bytes) -> ResultMessage | ErrorMessage:
    try:
        return ResultMessage(result=fetch(fetch_specs.validate_json(line)))
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk of the log may be full
            traceback.print_exc()
        known = error if isinstance(error, SecateurError) else _unexpected(error)
        return ErrorMessage(**known.problem())


def _unexpected(error: Exception) -> SecateurError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the worker's disk: {error.filename or error.strerror}")
    return InternalError(f"{type(error).__name__}: {str(error)[:500]}")


if __name__ == "__main__":
    sys.exit(main())
