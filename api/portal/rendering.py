"""Rendering of templates, and their common variables."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from api.portal.formatting import FILTERS
from api.portal.static_files import static_url

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(FILTERS)
_environment.globals.update(static=static_url)


def fragment(template: str, /, **context: Any) -> str:
    """Render a part of a page as HTML."""
    return _environment.get_template(template).render(now=datetime.now(UTC), **context)


def page(
    request: Request,
    template: str,
    context: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Render a whole page, or a fragment if the template is one.

    The template gets the signed-in caller (`who`, None for nobody), the token for its forms (`csrf`), and its own path,
    which marks the current place in the navigation.
    """
    known = {
        "who": getattr(request.state, "signed_in", None),
        "csrf": getattr(request.state, "csrf", ""),
        "path": request.url.path,
    }
    return HTMLResponse(fragment(template, **known, **(context or {})), status, dict(headers or {}))


def address_of(request: Request) -> str:
    """Return the address of the service, which the portal is mounted below, without a slash at its end."""
    return f"{request.url.scheme}://{request.url.netloc}"


def is_partial(request: Request) -> bool:
    """Return whether htmx requests a fragment to replace in the current page."""
    return request.headers.get("HX-Request-Type") == "partial"
