"""Promises of the service, each a small function that yields where an installation broke it."""

from bench.chaos.promises import artifacts, attempts, jobs, leftovers, teams, webhooks
from bench.chaos.promises.promise import Promise, promises

__all__ = ["Promise", "artifacts", "attempts", "jobs", "leftovers", "promises", "teams", "webhooks"]
