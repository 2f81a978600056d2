"""Configuration of the client: the server's address and an API key.

`SECATEUR_URL` and `SECATEUR_API_KEY` set them. A missing one is read from the folder `SECATEUR_HOME` (default
`.secateur`), where an embedded server writes its address to `url` and its key to `api-key`. That key belongs to that
server: it is never sent to another address.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from secateur.errors import ConfigurationError

DEFAULT_HOME: Final = ".secateur"
DEFAULT_URL: Final = "http://127.0.0.1:8000"
KEY_PREFIX_LENGTH: Final = 12
"""Number of characters of a key that lists of keys show too."""


@dataclass(frozen=True)
class Configuration:
    """Server's URL, without a trailing slash, API key, and the place that the key comes from, for messages."""

    url: str
    api_key: str
    key_source: str = field(default="", compare=False)

    @property
    def named_key(self) -> str:
        """Return the beginning of the key, never the whole, and its source: a refused key is then found."""
        return f"the key {self.api_key[: min(KEY_PREFIX_LENGTH, len(self.api_key) // 3)]}… from {self.key_source}"


def home() -> Path:
    """Return the folder of the embedded server; it need not exist."""
    return Path(os.environ.get("SECATEUR_HOME") or DEFAULT_HOME)


def embedded_url() -> str:
    """Return the address that the embedded server of this home wrote to its file, or its default address."""
    return (_content(home() / "url") or DEFAULT_URL).rstrip("/")


def server_url(url: str | None = None) -> str:
    """Return the server's URL from the argument, then the environment, then the home. Raises ConfigurationError."""
    return _checked_url(url or os.environ.get("SECATEUR_URL") or embedded_url())


def resolve(url: str | None = None, api_key: str | None = None) -> Configuration:
    """Return the configuration from the arguments, then the environment, then the home. Raises ConfigurationError."""
    resolved_url = server_url(url)
    resolved_key, source = api_key, "the argument api_key"
    if not resolved_key:
        resolved_key, source = os.environ.get("SECATEUR_API_KEY"), "SECATEUR_API_KEY"
    if not resolved_key and resolved_url == embedded_url():
        resolved_key, source = _content(home() / "api-key"), f"the file {home() / 'api-key'}"
    if not resolved_key:
        raise ConfigurationError(
            f"no API key for {resolved_url}: set SECATEUR_API_KEY, or start an embedded server with `secateur serve`, "
            f"which writes one to {home() / 'api-key'} (set SECATEUR_HOME if its home is elsewhere)"
        )
    if not resolved_key.isascii() or not resolved_key.isprintable() or " " in resolved_key:
        raise ConfigurationError("the API key has characters no key has; copy it again: it starts with sct_")
    return Configuration(resolved_url, resolved_key, source)


def _checked_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{text!r} is not a URL ({error}); write it like {DEFAULT_URL}") from None
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise ConfigurationError(f"{text!r} is not the URL of a server; write it like {DEFAULT_URL}")
    return text.rstrip("/")


def _content(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read ({error}); set SECATEUR_URL and SECATEUR_API_KEY") from None
