"""Which files of a run go to one process: those that share what is slow to start, one after another."""

from typing import Final

from xdist.scheduler import LoadFileScheduling

TOGETHER: Final = {
    "runners": (
        "tests/runner/",
        "tests/sources/test_jobs.py",
        "tests/worker/test_fork_server.py",
        "tests/worker/test_full_disk.py",
        "tests/worker/test_home.py",
        "tests/gguf/test_import.py",
        "tests/portal/test_first_job.py",
    ),
    "apart": (
        "tests/engine/architectures/test_families.py",
        "tests/engine/evaluation/test_tasks.py",
        "tests/engine/exporters/test_per_layer.py",
        "tests/engine/pruning/test_structured.py",
        "tests/engine/recovery/test_recovery.py",
        "tests/methods/test_flap.py",
        "tests/methods/test_layer_drop.py",
        "tests/methods/test_structured_frontier.py",
    ),
    "experts": ("tests/engine/pruning/test_expert",),
    "sources": ("tests/style/",),
}
"""Starts of files that share one process: that which runners are forked from, that of `tests.engine.apart`, one that
has found the architectures of mixtures, and one that has parsed the product. Each takes seconds to be ready."""


class ByWhatIsShared(LoadFileScheduling):
    """A file at a time, and those of `TOGETHER` as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        together = (name for name, starts in TOGETHER.items() if nodeid.startswith(starts))
        return next(together, super()._split_scope(nodeid))
