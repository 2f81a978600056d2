"""axe-core in a page: served beside the portal, so that a browser fetches it once.

To hand half a megabyte to a page through the browser's debugging interface takes several times as long.
"""

from typing import Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_PATH: Final = "/axe-core.js"
_SCRIPT: Final[str] = Axe().axe_script
_FETCH = """
path => "axe" in window || new Promise(done => {
    const script = document.createElement("script");
    script.src = path;
    script.onload = script.onerror = () => {
        script.remove();
        done("axe" in window);
    };
    document.head.append(script);
})
"""


def with_axe(app: ASGIApp) -> ASGIApp:
    """Return the application with axe-core among what it serves."""
    script = Response(
        _SCRIPT, media_type="text/javascript", headers={"Cache-Control": "public, max-age=86400, immutable"}
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (script if scope.get("path") == _PATH else app)(scope, receive, send)

    return serve


def load_axe(page: Page) -> None:
    """Load axe-core into the page, also where nobody serves it."""
    if not page.evaluate(_FETCH, _PATH):
        page.evaluate(_SCRIPT)
