"""The schedule of faults: reproducible, and every kind and stage often enough."""

from collections import Counter
from itertools import pairwise

import pytest

from bench.chaos.faults import KINDS, SCHEDULED, WHOSE_JOB
from bench.chaos.outsiders import ROWS
from bench.chaos.schedule import schedule
from core.service.jobs.states import STAGES

SEEDS = range(20)


def test_a_seed_gives_the_same_faults_and_another_seed_others() -> None:
    assert schedule(7, 200) == schedule(7, 200)
    assert schedule(7, 50) == schedule(7, 200)[:50]
    assert schedule(7, 50) != schedule(8, 50)


@pytest.mark.parametrize("seeds", [1, 10], ids=["in one run", "in ten runs"])
def test_a_thousand_faults_have_forty_of_each_kind_and_sixty_at_each_stage(seeds: int) -> None:
    made = [fault for seed in range(seeds) for fault in schedule(seed, 1000 // seeds)]
    kinds, stages = Counter(fault.kind for fault in made), Counter(fault.stage for fault in made)
    assert set(kinds) == set(SCHEDULED)
    assert min(kinds.values()) >= 39, kinds
    assert min(stages[stage] for stage in STAGES) >= 60, stages


def test_freezes_last_a_second_to_ninety_and_most_are_short() -> None:
    lengths = sorted(fault.seconds for seed in SEEDS for fault in schedule(seed, 500) if fault.kind == "freeze")
    assert 1 <= lengths[0] < 1.1 and 80 < lengths[-1] <= 90
    assert lengths[len(lengths) // 2] < 3
    assert lengths[len(lengths) * 9 // 10] > 16, "leases of eight seconds run out twice over"


def test_clocks_are_wrong_by_three_minutes_to_a_day_either_way() -> None:
    shifts = [fault.shift for seed in SEEDS for fault in schedule(seed, 500) if fault.kind == "clock_shift"]
    assert all(180 <= abs(shift) <= 86400 for shift in shifts)
    assert min(shifts) < -20000 and max(shifts) > 20000
    assert {abs(each.shift) for each in schedule(1, 500) if each.kind == "clock_jump"} == {3600.0}
    assert {each.shift for each in schedule(1, 500) if each.kind not in ("clock_shift", "clock_jump")} == {0.0}


def test_two_are_on_at_once_now_and_then_and_never_three() -> None:
    joins = [fault.joins for fault in schedule(3, 1000)]
    assert not joins[0] and 50 < sum(joins) < 250
    assert not any(one and two for one, two in pairwise(joins))
    alone = {name for name, kind in KINDS.items() if kind.is_alone}
    assert len(alone) == 5
    assert not any(two.joins and {one.kind, two.kind} & alone for one, two in pairwise(schedule(3, 1000)))


def test_of_some_kinds_none_other_comes() -> None:
    made = schedule(3, 100, kinds=("kill", "hub_silent"))
    assert Counter(fault.kind for fault in made) == {"kill": 75, "hub_silent": 25}


def test_what_is_aimed_at_a_stage_hits_the_worker_of_a_job_that_is_in_it() -> None:
    for fault in schedule(5, 1000):
        is_workers = fault.kind in {"kill", "freeze", "wire_silent", "disk_full", "clock_shift", "drain"}
        assert fault.target.startswith(WHOSE_JOB) == (is_workers and fault.stage is not None), fault


def test_every_process_and_wire_is_hit() -> None:
    targets = {(fault.kind, fault.target) for seed in SEEDS for fault in schedule(seed, 500)}
    for kind in ("kill", "freeze"):
        for name in ("api-0", "api-1", "dispatcher-0", "dispatcher-1", "worker-3", "worker-*", "worker-*/runner"):
            assert (kind, name) in targets
    assert {
        ("wire_silent", f"{name}:{end}") for name in ("api-1", "worker-*") for end in ("postgres", "redis")
    } <= targets
    assert {("clock_shift", "dispatcher-0"), ("clock_shift", "worker-*"), ("clock_jump", "api-1")} <= targets
    assert {target for kind, target in targets if kind == "poisoned_row"} == set(ROWS)
