"""Sessions of the library beneath s3fs. Each has credentials of its own; all share what they read of the services."""

from functools import cache

from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader


def new_session() -> AioSession:
    """Return a session that finds the description of S3 read: to read it takes longer than any request."""
    session = AioSession()
    session.register_component("data_loader", _descriptions(session.get_config_variable("data_path")))
    return session


@cache
def _descriptions(path: str | None) -> Loader:
    """Return the loader of this process, which keeps what it read for whichever session asked first."""
    return create_loader(path)
