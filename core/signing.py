"""Signatures of artifacts by the installation's key, and the public keys by which anybody can check them."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from core.settings import Settings
from secateur_wire.provenance import PAYLOAD_TYPE, SigningKey, Statement

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

# securesystemslib is loaded where it is needed: it loads every signing library that it finds, such as boto3.
_UNUSABLE: Final = (OSError, ValueError, TypeError, UnsupportedAlgorithm)
_PUBLIC: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def new_private_key() -> str:
    """Return a new private key (Ed25519) as PEM."""
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    return CryptoSigner.generate_ed25519().private_bytes.decode()


def read_signer(file: Path) -> "CryptoSigner":
    """Return what signs with the private key of a PEM file; raises ValueError where there is none."""
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    return CryptoSigner(_private_key(file))


def sign(statement: Statement, signer: "CryptoSigner") -> str:
    """Return the signed statement: a DSSE envelope as a line of JSON."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(statement.model_dump_json().encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True) + "\n"


def public_key(file: Path) -> SigningKey:
    """Return the public key of the private one in a PEM file; raises ValueError where there is none."""
    return _described(_private_key(file).public_key())


def public_keys(settings: Settings) -> list[SigningKey]:
    """Return the public keys of the installation: of `signing_key`, then those of `signing_public_keys`.

    Raises ValueError for a file without such keys.
    """
    keys = [] if settings.signing_key is None else [public_key(settings.signing_key)]
    file = settings.signing_public_keys
    if file is not None:
        try:
            blocks = _PUBLIC.findall(file.read_bytes())
            if not blocks:
                raise ValueError("there is no block BEGIN PUBLIC KEY")
            keys += [_described(load_pem_public_key(each)) for each in blocks]
        except _UNUSABLE as error:
            raise ValueError(f"SECATEUR_SIGNING_PUBLIC_KEYS: {file} holds no public keys as PEM: {error}") from error
    return list({key.keyid: key for key in keys}.values())


def _private_key(file: Path) -> Any:
    from securesystemslib.exceptions import UnsupportedAlgorithmError
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    try:
        key: Any = load_pem_private_key(file.read_bytes(), password=None)
        CryptoSigner(key)
    except (*_UNUSABLE, UnsupportedAlgorithmError) as error:
        raise ValueError(
            f"SECATEUR_SIGNING_KEY: {file} holds no private key that can sign (PEM without a password: Ed25519, ECDSA "
            f"or RSA): {error}"
        ) from error
    return key


def _described(key: Any) -> SigningKey:
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    known = SSlibKey.from_crypto(key)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return SigningKey(keyid=known.keyid, scheme=known.scheme, pem=pem)
