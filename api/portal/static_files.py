"""The portal's own scripts, styles and what others wrote: by hash, so that browsers keep them for good."""

import hashlib
from functools import cache
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
VERSION = "v"


@cache
def static_url(name: str) -> str:
    """Return the URL of a static file, which changes with its content."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:16]
    return f"/portal/static/{name}?{VERSION}={digest}"


class StaticFolder(StaticFiles):
    """Static files that browsers keep for a year where the URL has the version, and ask for again otherwise."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        versioned = scope["query_string"].startswith(f"{VERSION}=".encode())
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if versioned else "no-cache"
        return response
