"""Format of an API key: `sct_` + 8 characters that name it + 32 random ones + 6 of checksum, all base 62.

With the checksum, scanners and typing mistakes can be told from keys without a database.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_letters
_FORM = re.compile(r"sct_([0-9A-Za-z]{8})([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


def new_token() -> str:
    body = "".join(secrets.choice(ALPHABET) for _ in range(40))
    return f"sct_{body}{_checksum(body)}"


def prefix_of(token: str) -> str | None:
    """Return the part of a token that identifies it, None where the token is malformed."""
    match = _FORM.fullmatch(token)
    if match is None or _checksum(match[1] + match[2]) != match[3]:
        return None
    return f"sct_{match[1]}"


def digest_of(token: str, secret: bytes) -> bytes:
    return hmac.new(secret, token.encode(), hashlib.sha256).digest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
