"""Tests of removals: counts, what is reachable and what is left agree with each other for every kind."""
