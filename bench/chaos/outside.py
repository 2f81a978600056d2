"""Faults that come from outside: what others stored, sent or keep on a hub.

Bystanders ask how the service is meanwhile, so nothing else may be wrong at that time.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bench.chaos.fleet import Fleet
from bench.chaos.outsiders import FILES
from bench.chaos.schedule import Fault

_CLOCKS: Final = ("trigger", "webhook", "sweep", "awaiting", "publication")


@contextmanager
def poisoned_row(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    asking = fleet.bystanders.asking(_told(fault), *_CLOCKS)
    fleet.outsiders.poison(target)
    with asking:
        yield


@contextmanager
def hub_away(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Have connections to the hub refused."""
    with _hub(fleet, fault, lambda: fleet.parts[target].stop(0), fleet.parts[target].start):
        yield


@contextmanager
def hub_silent(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Have connections to the hub accepted, and never answered."""
    [process] = fleet.processes(target)
    with _hub(fleet, fault, process.suspend, process.resume):
        yield


@contextmanager
def _hub(fleet: Fleet, fault: Fault, leave: Callable[[], None], return_: Callable[[], None]) -> Iterator[None]:
    triggers = fleet.outsiders.add_hub_triggers()
    asking = fleet.bystanders.asking(_told(fault), "health", "call", *_CLOCKS)  # prepared while all is well
    with fleet.parts["hub"].alone:
        leave()
        try:
            fleet.outsiders.make_due(triggers)
            with asking:
                yield
        finally:
            return_()


@contextmanager
def slow_parser(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Upload files that are slow to check, all at the same time."""
    threads = [threading.Thread(target=fleet.outsiders.upload, args=(what,), daemon=True) for what in FILES]
    with fleet.bystanders.asking(_told(fault), "health", "call"):
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join()


@contextmanager
def freezing_client(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    api = fleet.installation.apis[fleet.services.apis.index(target)]
    with fleet.bystanders.asking(_told(fault), "health", "call"), fleet.outsiders.sending_nested_lists(api):
        yield


def _told(fault: Fault) -> str:
    return f"fault {fault.number} ({fault.kind})"
