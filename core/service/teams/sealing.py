"""Encryption of secrets that the service must read again, such as the signing keys of webhooks.

Each purpose has a key of its own, derived from the server's secret: a secret encrypted for one purpose cannot be
decrypted for another.
"""

import base64
import hashlib
import hmac

from cryptography.fernet import Fernet, InvalidToken


class SecretCipher:
    """Cipher for one purpose. `secret` is `core.service.teams.server_secret.server_secret`."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        key = hmac.new(secret, b"sealed\0" + purpose.encode(), hashlib.sha256).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, plain: str) -> bytes:
        return self._fernet.encrypt(plain.encode())

    def open(self, sealed: bytes) -> str:
        """Return the plaintext; raises ValueError if it was encrypted for another purpose or with another secret."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise ValueError("this was encrypted with another secret: was SECATEUR_SECRET_KEY changed?") from None
