"""Sessions of the library beneath s3fs: each has its own credentials, and all share the service descriptions."""

from functools import cache

from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader


def new_session() -> AioSession:
    """Return a session that shares the loaded description of S3; loading it takes longer than any request."""
    session = AioSession()
    session.register_component("data_loader", _descriptions(session.get_config_variable("data_path")))
    return session


@cache
def _descriptions(path: str | None) -> Loader:
    """Return the loader of this process, which caches descriptions for all sessions."""
    return create_loader(path)
