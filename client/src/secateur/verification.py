"""Verification of artifacts, without the server that made them: signature, statement, and every file."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from pydantic import ValidationError

from secateur.errors import ConfigurationError, UnexpectedAnswer, Unreachable, VerificationFailed
from secateur.transport import is_loopback
from secateur_wire.installation import CLIENT, install_command
from secateur_wire.provenance import KEYS_PATH, PROVENANCE, SigningKeys, Statement
from secateur_wire.signed_statement import (
    InvalidStatement,
    file_differences,
    hashes_of,
    open_statement,
    parse_public_keys,
)

if TYPE_CHECKING:
    from securesystemslib.signer import Key  # type: ignore[attr-defined]

_MOST_DIFFERENCES: Final = 20
_MOST_BYTES: Final = 64 * 2**20
_ANSWER_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Verified:
    """An artifact that is what its statement says, the id of the key that signed it, and its files and bytes."""

    statement: Statement
    keyid: str
    files: int
    bytes: int


def fetch_keys(url: str) -> list[str]:
    """Return the public keys of an installation as PEM. Raises Unreachable and UnexpectedAnswer."""
    try:
        answer = httpx.get(f"{url}{KEYS_PATH}", timeout=_ANSWER_SECONDS, trust_env=not is_loopback(httpx.URL(url).host))
    except httpx.HTTPError as error:
        raise Unreachable(f"{url} does not answer ({error}); give the key as a file instead") from error
    try:
        return [key.pem for key in SigningKeys.model_validate_json(answer.raise_for_status().content).keys]
    except (httpx.HTTPStatusError, ValidationError) as error:
        raise UnexpectedAnswer(f"{url}{KEYS_PATH} does not list signing keys: {error}") from error


def verify_artifact(folder: Path, keys: Sequence[str]) -> Verified:
    """Verify a folder by its signed statement; `keys` are the public keys that are trusted, as PEM.

    The folder must have every file of the statement with its very bytes, and nothing else: no other file, link or
    device, but for those that the hub's client adds to a download. Raises VerificationFailed, which lists what is
    wrong, and ConfigurationError where the libraries for signatures are not installed or a key cannot be read.
    """
    if not folder.is_dir():
        raise VerificationFailed(f"{folder} is not a folder")
    statement, keyid = _signed_statement(_envelope_of(folder / PROVENANCE), _parsed_keys(keys))
    hashes = hashes_of(statement)
    present = {path.relative_to(folder).as_posix(): path for path in _tree(folder)}
    del present[PROVENANCE]
    contents = {name: _regular_hash(path, is_signed=name in hashes) for name, path in present.items()}
    differences = list(file_differences(hashes, contents))
    if differences:
        more = f"; and {len(differences) - _MOST_DIFFERENCES} more" if len(differences) > _MOST_DIFFERENCES else ""
        raise VerificationFailed(f"{folder}: {'; '.join(differences[:_MOST_DIFFERENCES])}{more}")
    return Verified(statement, keyid, len(hashes), sum(path.stat().st_size for path in present.values()))


def verify_file(file: Path, keys: Sequence[str], statement: Path | None = None) -> Verified:
    """Verify one file of an artifact, under any name, by the artifact's statement; None: the one beside the file.

    `keys` are the public keys that are trusted, as PEM. Raises VerificationFailed and ConfigurationError.
    """
    trusted = _parsed_keys(keys)
    neighbour = file.with_name(PROVENANCE)
    if statement is None and not neighbour.is_file():
        raise VerificationFailed(f"{file} has no {PROVENANCE} beside it: give the artifact's with --statement")
    signed, keyid = _signed_statement(_envelope_of(statement or neighbour), trusted)
    digest = _hash_of(file)
    if not any(subject.digest.get("sha256") == digest for subject in signed.subject):
        raise VerificationFailed(f"{file} has other bytes than were signed, or is of another artifact")
    return Verified(signed, keyid, 1, file.stat().st_size)


def _envelope_of(file: Path) -> bytes:
    if file.is_symlink() or not file.is_file():
        raise VerificationFailed(
            f"{file.parent} has no {file.name}: the artifact was never signed, or its signature was taken away"
        )
    if file.stat().st_size > _MOST_BYTES:
        raise VerificationFailed(f"{file} is larger than any statement")
    return file.read_bytes()


def _signed_statement(content: bytes, keys: Sequence["Key"]) -> tuple[Statement, str]:
    try:
        return open_statement(content, keys)
    except InvalidStatement as error:
        raise VerificationFailed(str(error)) from error


def _parsed_keys(keys: Sequence[str]) -> list["Key"]:
    try:
        return parse_public_keys(keys)
    except ImportError as error:
        command = install_command(CLIENT, "verify", is_here=True)
        raise ConfigurationError(f"verification needs more libraries: {command}") from error
    except ValueError as error:
        raise ConfigurationError(f"a key is no public key as PEM (BEGIN PUBLIC KEY): {error}") from error


def _tree(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder that is not a folder itself; a link to a folder is not followed."""
    for place, folders, files in os.walk(folder):
        for name in (*files, *(each for each in folders if (Path(place) / each).is_symlink())):
            yield Path(place) / name


def _regular_hash(path: Path, *, is_signed: bool) -> str | None:
    """Return the hash of a file, None for what is no regular file; files that are not signed are not read."""
    if path.is_symlink() or not path.is_file():
        return None
    return _hash_of(path) if is_signed else ""


def _hash_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
