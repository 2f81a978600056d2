"""Reverse proxies in front of the API: who asked, and whether by https, is taken from those that the settings trust.

uvicorn's own middleware, within the application: however the server is started, it trusts the same addresses.
"""

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from core.settings import Settings

_CLIENT_BITS: Final = 64
"""Bits of an IPv6 address that name a client's network: within it a client takes whichever address it likes."""


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


def client_address(request: Request) -> str:
    """Return the address that a request came from, as far as trusted proxies say."""
    return request.client.host if request.client else "unknown"


def network_of(address: str) -> str:
    """Return the network of a client's address, by which clients are counted.

    It is the /64 of an IPv6 address, and otherwise the address itself.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # a socket file, or what a test calls itself
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _CLIENT_BITS), strict=False))
