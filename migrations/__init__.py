"""The schema's history. `core.database.migrate` applies it; `alembic revision --autogenerate` adds to it."""
