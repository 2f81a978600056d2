"""PgBouncer between workers and PostgreSQL, as docs/operations.md says to set it up."""

import os
from pathlib import Path

from sqlalchemy import make_url


def configure_pooler(folder: Path, url: str, port: int, *, connections: int) -> Path:
    """Write the configuration of a pooler on loopback that lends so many `connections` to the server of `url`, whose
    socket is a file; where it lies. A pooler refuses to run as root: it is the user whom the socket belongs to.
    """
    server = make_url(url)
    sockets = Path(str(server.query["host"]))
    path = folder / "pgbouncer.ini"
    path.write_text(f"""[databases]
{server.database} = host={sockets} user={server.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
{f"user = {sockets.owner()}" if os.geteuid() == 0 else ""}
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 1000
max_prepared_statements = 200
ignore_startup_parameters = options
""")
    return path


def pooled_url(url: str, port: int) -> str:
    """Return the URL of a database as clients of the pooler reach it."""
    return make_url(url).set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
