"""Slots that teams share: what one keeps waiting, another does not wait for."""

import asyncio
import threading

from api.state import TeamSlots


def test_a_team_that_holds_its_slots_holds_up_nobody_else() -> None:
    ends = threading.Event()
    begun = threading.Semaphore(0)

    def wait() -> str:
        begun.release()
        ends.wait(120)
        return "slow"

    async def scenario() -> None:
        slots = TeamSlots(4, slots_of_a_team=2)
        slow = [asyncio.create_task(slots.run("slow", wait)) for _ in range(10)]
        for _ in range(2):
            await asyncio.to_thread(begun.acquire)
        for _ in range(10):
            assert await slots.run("other", lambda: "quick") == "quick"
        assert not begun.acquire(blocking=False), "two of its ten run"
        assert not any(task.done() for task in slow)
        ends.set()
        assert await asyncio.gather(*slow) == ["slow"] * 10

    asyncio.run(scenario())
