"""Folders of the portal's templates and static files."""

from pathlib import Path

_PORTAL = Path(__file__).parent
TEMPLATES = _PORTAL / "templates"
STATIC = _PORTAL / "static"
