"""Scripts and styles of the portal and of third parties, with a hash in the address, so that browsers cache them."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
SWAGGER = Path(str(files("fastapi_swagger") / "resources"))
"""Folder of Swagger UI, served as `/portal/static/swagger`."""
VERSION = "v"


@cache
def static_url(name: str) -> str:
    """Return the URL of a static file, which changes with its content."""
    folder, _, inner = name.partition("/")
    file = SWAGGER / inner if folder == "swagger" else STATIC / name
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return f"/portal/static/{name}?{VERSION}={digest}"


class StaticFolder(StaticFiles):
    """Static files that browsers cache for a year if the address has the version, and revalidate otherwise."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        versioned = scope["query_string"].startswith(f"{VERSION}=".encode())
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if versioned else "no-cache"
        return response
