"""Which files of a run go to one process: those that share what is slow to start, one after another."""

from typing import Final

from xdist.scheduler import LoadFileScheduling

TOGETHER: Final = {
    "runners": (
        "tests/runner/",
        "tests/sources/test_jobs.py",
        "tests/worker/test_fork_server.py",
        "tests/worker/test_full_disk.py",
        "tests/worker/test_register.py",
        "tests/worker/test_signs_of_life.py",
        "tests/gguf/test_import.py",
    ),
    "apart": tuple(
        f"tests/engine/test_{name}.py" for name in ("apart", "families", "per_layer", "recovery", "structured", "tasks")
    ),
    "onnx": ("tests/engine/test_classifier_artifact.py", "tests/engine/test_classifier_latency.py"),
}
"""Starts of files that share one process: that which runners are forked from, that of `tests.engine.apart`, and one
that exports to ONNX. Each takes seconds to load its libraries."""


class ByWhatIsShared(LoadFileScheduling):
    """A file at a time, and those of `TOGETHER` as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        together = (name for name, starts in TOGETHER.items() if nodeid.startswith(starts))
        return next(together, super()._split_scope(nodeid))
