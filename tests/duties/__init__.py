"""Tests of the dispatcher's duties: rows that fail, and what waits for the hub."""
