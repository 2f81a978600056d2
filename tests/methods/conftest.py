"""Fixtures of the engine's tests, for those of whole methods."""

from tests.engine.conftest import apart, one_thread, one_thread_for_shared_fixtures

__all__ = ["apart", "one_thread", "one_thread_for_shared_fixtures"]
