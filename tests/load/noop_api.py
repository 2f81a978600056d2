"""The product's API, which knows the method that does nothing: `uvicorn --factory tests.load.noop_api:create_app`."""

from api.app import create_app
from tests.load.noop import FOLDER

__all__ = ["FOLDER", "create_app"]
