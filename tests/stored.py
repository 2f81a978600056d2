"""Files that tests put into a store."""

from core.storage import Store


def put(store: Store, prefix: str, path: str, content: bytes) -> None:
    """Store one file."""
    incoming = store.incoming(prefix, path)
    incoming.write(content)
    incoming.finish()
