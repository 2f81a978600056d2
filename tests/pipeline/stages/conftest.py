"""Fixtures of the engine's tests, for those of stages."""

from tests.engine.conftest import one_thread, one_thread_for_shared_fixtures

__all__ = ["one_thread", "one_thread_for_shared_fixtures"]
