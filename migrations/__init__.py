"""History of the schema: `core.database.migrate` applies it; `alembic revision --autogenerate` adds to it."""
