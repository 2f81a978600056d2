"""Where templates and static files lie."""

from pathlib import Path

_PORTAL = Path(__file__).parent
TEMPLATES = _PORTAL / "templates"
STATIC = _PORTAL / "static"
