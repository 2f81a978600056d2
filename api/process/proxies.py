"""Trusted reverse proxies: the client's address and scheme are taken from proxies that the settings trust.

This is uvicorn's own middleware inside the application, so the same addresses are trusted however the server is
started.
"""

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from core.settings import Settings

_CLIENT_BITS: Final = 64
"""Bits of an IPv6 address that identify a client's network: a client may use any address in it."""


def behind_proxies(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Wrap the application so that it sees the client's address and scheme from a trusted proxy.

    Of several addresses in X-Forwarded-For, the last one that is not a trusted proxy counts: the client may invent the
    ones before it.
    """
    proxies = [str(network) for network in settings.trusted_proxies]
    if not proxies:
        return app
    uvicorns: Any = app  # The same protocol, in uvicorn's own types.
    return cast(ASGIApp, ProxyHeadersMiddleware(uvicorns, proxies))


def client_address(request: Request) -> str:
    """Return the address of a request's client, as far as trusted proxies report it."""
    return request.client.host if request.client else "unknown"


def network_of(address: str) -> str:
    """Return the network of a client's address, by which clients are counted.

    It is the /64 of an IPv6 address, and otherwise the address itself.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # A socket file, or the name of a test client.
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _CLIENT_BITS), strict=False))
