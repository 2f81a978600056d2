"""States of a discovery."""

from typing import get_args

from secateur_wire.states import DiscoveryState

STATES: tuple[DiscoveryState, ...] = get_args(DiscoveryState)
OPEN: tuple[DiscoveryState, ...] = ("waiting", "running")
