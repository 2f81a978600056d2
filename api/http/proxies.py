"""Reverse proxies in front of the API: who asked, and whether by https, is taken from those that the settings trust.

uvicorn's own middleware, within the application: however the server is started, it trusts the same addresses.
"""

from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from core.settings import Settings


def behind_proxies(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Wrap the application so that it sees the client's address and scheme where a trusted proxy passes them on.

    Of several addresses in X-Forwarded-For the last counts that is no trusted proxy's: those before it are the client's
    own invention.
    """
    proxies = [str(network) for network in settings.trusted_proxies]
    if not proxies:
        return app
    uvicorns: Any = app  # the same protocol, in types of uvicorn's own
    return cast(ASGIApp, ProxyHeadersMiddleware(uvicorns, proxies))
