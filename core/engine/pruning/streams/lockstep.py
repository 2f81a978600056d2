"""Forwards that run in lockstep: each waits at a barrier until all have reached it."""

from collections.abc import Callable, Sequence

from greenlet import getcurrent, greenlet
from torch import Tensor


def wait_at_barrier(barrier: str) -> None:
    """Wait, inside a forward, until every other forward has arrived at the same barrier."""
    parent = getcurrent().parent
    assert parent is not None
    parent.switch(barrier)


def current_forward() -> greenlet:
    """Return the running forward: one of those in lockstep, or the caller's."""
    return getcurrent()


def run_in_lockstep(
    forwards: Sequence[Callable[[], Tensor]],
    at_barrier: Callable[[str], None],
    on_output: Callable[[int, Tensor], None],
) -> None:
    """Run forwards up to each barrier in turn, call `at_barrier` once all wait there, and continue.

    Each forward is a greenlet, which keeps its stack while the others catch up. Outputs go to `on_output` as soon as
    they are computed.
    """
    running = [greenlet(forward) for forward in forwards]
    try:
        while not running[0].dead:
            at: set[str] = set()
            for index, each in enumerate(running):
                answer = each.switch()
                if each.dead:
                    on_output(index, answer)
                else:
                    at.add(answer)
            if at:
                assert len(at) == 1 and not any(each.dead for each in running), "forwards of one block must agree"
                at_barrier(at.pop())
    finally:
        for each in running:
            if not each.dead:  # the garbage collector does not see the objects of a waiting stack
                each.throw()
