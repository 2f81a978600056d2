"""Slots for work in threads that teams share fairly."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class TeamSlots:
    """Threads for one kind of work. One team may use only some of them, so that it holds up no other team."""

    def __init__(self, slots: int, slots_of_a_team: int) -> None:
        self._slots = CapacityLimiter(slots)
        self._slots_of_a_team = slots_of_a_team
        self._teams: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()

    async def run(self, team_id: str, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Return what the function returns, called in a thread once both the team and the process have a slot."""
        team = self._teams.setdefault(team_id, CapacityLimiter(self._slots_of_a_team))
        async with team:
            return await to_thread.run_sync(function, *arguments, limiter=self._slots)
