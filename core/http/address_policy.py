"""Policy for addresses that users give: calls into this machine or its network are refused.

A URL is checked when it is given, and again at every call (`core.http.outbound`). The name is resolved once, and every
address it has must be global, or in a network that the operator allows.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from secateur_wire.errors import UnsafeAddress

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""Resolver of a host name to its addresses, as text; raises OSError if it has none."""

LONGEST_URL = 2000
_WAY_OUT = ": the operator of this service can allow its network with SECATEUR_WEBHOOK_ALLOWED_NETWORKS"
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED = tuple(
    ip_network(each)
    for each in (
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4 written as IPv6, long deprecated
        "2001::/32",  # Teredo: tunnels to whatever IPv4 address it contains
        "fec0::/10",  # site-local, long deprecated
    )
)


def resolve(name: str, port: int) -> list[str]:
    """Return the addresses of a host name from the system's resolver, each once."""
    entries = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in entries))


@dataclass(frozen=True)
class AddressPolicy:
    """Policy for outgoing calls: global addresses and the networks that an operator allowed."""

    allowed: tuple[Network, ...] = ()
    resolve: Resolve = resolve

    def check_url(self, url: str, *, resolve_seconds: float = 3) -> None:
        """Raise UnsafeAddress, naming what is wrong, where the URL must not be called or its name has no address."""
        target = CallTarget.of(url)
        try:
            self.addresses(target, resolve_seconds)
        except UnsafeAddress as error:
            raise UnsafeAddress(f"url: {error.message}", param="url") from None

    def addresses(self, target: "CallTarget", seconds: float) -> list[Address]:
        """Return all addresses of the target's name; raises UnsafeAddress if one of them must not be called."""
        addresses = [ip_address(each.partition("%")[0]) for each in self._resolve(target, seconds)]
        for address in addresses:
            if self._is_allowed(address):
                continue
            named = target.host if target.host == str(address) else f"{target.host}, at {address},"
            if not is_global(address):
                raise UnsafeAddress(f"{named} is not a public address{_WAY_OUT}")
            if target.scheme != "https":
                raise UnsafeAddress(f"{named} may be called over https only, not {target.scheme}{_WAY_OUT}")
        return addresses

    def _is_allowed(self, address: Address) -> bool:
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        return any(plain in network for network in self.allowed if network.version == plain.version)

    def _resolve(self, target: "CallTarget", seconds: float) -> Sequence[str]:
        """Resolve the target's name in a thread, since the system's resolver may take longer than `seconds`."""
        outcome: list[Sequence[str] | OSError] = []

        def look_up() -> None:
            try:
                outcome.append(self.resolve(target.host, target.port))
            except (OSError, UnicodeError) as error:
                outcome.append(OSError(str(error)))

        thread = threading.Thread(target=look_up, name="resolve", daemon=True)
        thread.start()
        thread.join(max(0.0, seconds))
        if not outcome:
            raise UnsafeAddress(f"the name {target.host} was not resolved in time")
        [result] = outcome
        if isinstance(result, OSError) or not result:
            raise UnsafeAddress(f"the name {target.host} has no address")
        return result


@dataclass(frozen=True)
class CallTarget:
    """Parsed URL, so that the URL that is checked is also the one that is called; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: bytes
    authority: bytes

    @classmethod
    def of(cls, url: str) -> "CallTarget":
        """Parse a URL; raises UnsafeAddress where it is no http or https URL, or holds credentials or a fragment."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise UnsafeAddress("url: not a URL such as https://example.com/hook", param="url") from None
        if len(url) > LONGEST_URL or not url.isprintable() or " " in url or "\\" in url:
            raise UnsafeAddress(
                f"url: a URL has at most {LONGEST_URL} characters, and no spaces or backslashes", param="url"
            )
        if parsed.scheme not in ("https", "http") or not parsed.host:
            raise UnsafeAddress("url: must begin with https:// and a host, as https://example.com/hook", param="url")
        if parsed.userinfo:
            raise UnsafeAddress("url: must hold no user name or password", param="url")
        if parsed.fragment:
            raise UnsafeAddress("url: must have no part after #, which is never sent", param="url")
        host = parsed.raw_host.decode("ascii")
        port = parsed.port if parsed.port is not None else 443 if parsed.scheme == "https" else 80
        if not 0 < port < 2**16:
            raise UnsafeAddress(f"url: a port is a number from 1 to 65535, not {port}", param="url")
        return cls(parsed.scheme, host, port, parsed.raw_path, parsed.netloc)


def is_global(address: Address) -> bool:
    """Return whether an address is public and, if it embeds an IPv4 address (mapped, 6to4, NAT64), that one too."""
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(address.packed[-4:])
        if inner is not None:
            return is_global(inner)
    odd = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    return address.is_global and not odd
