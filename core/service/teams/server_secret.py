"""Secret of the server: the key for HMACs of API keys and for encrypted answers."""

import os
import secrets
from pathlib import Path

from core.settings import Settings


def server_secret(settings: Settings) -> bytes:
    """Return the configured secret, or the one in home, generated on first use (0600)."""
    if settings.secret_key is not None:
        return settings.secret_key.encode()
    file = settings.home / "secret-key"
    if not file.exists():
        settings.home.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        write_private(fresh, secrets.token_hex(32))
        try:
            os.link(fresh, file)  # Fails if another process was first: its secret is then used.
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return file.read_bytes().strip()


def write_private(file: Path, content: str) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(file)
