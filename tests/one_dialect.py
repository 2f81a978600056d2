"""PostgreSQL's dialect, one for all engines of a process, and one memory of compiled statements.

A service has one engine, which compiles each of its statements once. Tests make one for each database, thousands in a
run, each of which would ask the server what it is and compile all anew.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.util import LRUCache

_STATEMENTS = 2000


class OneDialect(PGDialect_psycopg):
    """The only instance there is with these options."""

    supports_statement_cache = True
    _instances: ClassVar[dict[frozenset[tuple[str, object]], PGDialect_psycopg]] = {}
    _compiled: ClassVar[LRUCache[Any, Any]] = LRUCache(_STATEMENTS)

    def __new__(cls, **options: Any) -> Self:
        instance = cls._instances.setdefault(frozenset(options.items()), super().__new__(cls))
        assert isinstance(instance, cls)
        return instance

    def __init__(self, **options: Any) -> None:
        if "knows_server" not in vars(self):
            begin: Callable[..., None] = super().__init__
            begin(**options)
            self.knows_server = False

    def initialize(self, connection: Connection) -> None:
        if not self.knows_server:
            ask: Callable[[Connection], None] = super().initialize
            ask(connection)
            self.knows_server = True

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        engine.update_execution_options(compiled_cache=cls._compiled)


def share_dialect() -> None:
    """Give every engine of this process the same dialect. To be called before the first is made."""
    registry.register("postgresql.psycopg", __name__, OneDialect.__name__)
