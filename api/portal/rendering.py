"""Templates, and what all of them know."""

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
    """Render a whole page, or the part of one that the template is.

    The template knows who is signed in (`who`, None for nobody), the token its forms must carry (`csrf`), and its own
    path, which marks the current place in the navigation.
    """
    known = {
        "who": getattr(request.state, "signed_in", None),
        "csrf": getattr(request.state, "csrf", ""),
        "path": request.url.path,
    }
    return HTMLResponse(fragment(template, **known, **(context or {})), status, dict(headers or {}))


def address_of(request: Request) -> str:
    """Return the address of the service, within which the portal is mounted, without a slash at its end."""
    return f"{request.url.scheme}://{request.url.netloc}"


def is_partial(request: Request) -> bool:
    """Tell whether htmx asks for a part of a page, which it swaps into the page that is there."""
    return request.headers.get("HX-Request-Type") == "partial"
