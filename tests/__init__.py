"""Tests, in folders that mirror the source tree. Real PostgreSQL, real files, real processes; nothing is mocked."""
