"""Signed statement of an artifact: its envelope (DSSE) is opened with public keys, and its files are compared.

securesystemslib is needed, an extra of the client. It is loaded where it is used.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from secateur_wire.provenance import PAYLOAD_TYPE, PROVENANCE, Statement

if TYPE_CHECKING:
    from securesystemslib.signer import Key  # type: ignore[attr-defined]

_HUB_FILE: Final = ".gitattributes"
_HUB_FOLDER: Final = ".cache/huggingface/"


class InvalidStatement(ValueError):
    """Content that is no signed statement about an artifact."""


class UntrustedStatement(InvalidStatement):
    """Statement without a valid signature by any of the keys. `keyids` are those that it names, `trusted` the keys'."""

    def __init__(self, keyids: Sequence[str], trusted: Sequence[str]) -> None:
        named, known = ", ".join(keyids) or "no key", ", ".join(trusted) or "none"
        super().__init__(f"{PROVENANCE} is not signed by a key that you trust: it names {named}, trusted: {known}")
        self.keyids, self.trusted = tuple(keyids), tuple(trusted)


def parse_public_keys(pems: Sequence[str]) -> list["Key"]:
    """Return public keys from PEM. Raises ValueError where one is none, ImportError without securesystemslib."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    try:
        return [SSlibKey.from_crypto(load_pem_public_key(pem.encode())) for pem in pems]
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error


def open_statement(content: bytes, keys: Sequence["Key"]) -> tuple[Statement, str]:
    """Return the statement of an envelope, and the id of the key that signed it.

    Raises UntrustedStatement where none of the keys has signed it, and InvalidStatement for other contents.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    try:
        envelope = Envelope.from_dict(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidStatement(f"{PROVENANCE} is no signed statement: {type(error).__name__}: {error}") from error
    try:
        accepted = envelope.verify(list(keys), 1)
    except (VerificationError, ValueError) as error:  # ValueError: there are no keys
        raise UntrustedStatement(sorted(envelope.signatures), [key.keyid for key in keys]) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InvalidStatement(f"what is signed is no in-toto statement but {envelope.payload_type!r}")
    try:
        return Statement.model_validate_json(envelope.payload), next(iter(accepted))
    except ValidationError as error:
        raise InvalidStatement(f"what is signed is no statement about an artifact: {error}") from error


def hashes_of(statement: Statement) -> dict[str, str]:
    """Return the SHA-256 of each file of a statement by its name."""
    return {subject.name: subject.digest.get("sha256", "") for subject in statement.subject}


def file_differences(
    signed: Mapping[str, str], present: Mapping[str, str | None], is_needed: Callable[[str], bool] = lambda name: True
) -> Iterator[str]:
    """Yield what is wrong with files, given by name and SHA-256: `present` has None for what is no regular file.

    Files that the hub and its client add to a download are left out, as no loader reads them. A missing file is wrong
    where it `is_needed`.
    """
    for name in sorted(signed.keys() - present.keys()):
        if is_needed(name):
            yield f"{name} is missing"
    for name, sha256 in sorted(present.items()):
        if sha256 is None:
            yield f"{name} is no regular file"
        elif name not in signed:
            if name != _HUB_FILE and not name.startswith(_HUB_FOLDER):
                yield f"{name} is not of this artifact"
        elif sha256 != signed[name]:
            yield f"{name} has other bytes than were signed"
