"""Start of the API: `uvicorn --factory api.start:create_app --http api.slow_clients:BoundedConnection`."""

import gc

from starlette.types import ASGIApp


def create_app() -> ASGIApp:
    """Return the application of this process; all objects loaded so far are excluded from garbage collection."""
    gc.disable()  # Imported modules stay; scanning them again and again would be a quarter of the start.
    from api.app import create_app

    app = create_app()
    gc.freeze()
    gc.enable()
    return app
