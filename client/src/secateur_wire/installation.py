"""Shell command that installs our own packages: from their wheels, as README does, or from a clone.

It never names them to a package index, where a stranger may own the names.
"""

import json
import shlex
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

CLIENT: Final = "secateur"
SERVER: Final = "secateur-server"


def install_command(package: str, extra: str, *options: str, is_here: bool = False) -> str:
    """Return the command that installs an extra of the client or the server, the client's wheel beside the server's.

    It names the wheels of this version in the current folder. With `is_here` it names what this machine's packages came
    from, where that is still there.
    """
    words = ["pip", "install", *options]
    for name in (CLIENT,) if package == CLIENT else (CLIENT, SERVER):
        source, is_editable = (_origin(name) if is_here else None) or (_wheel(name), False)
        words += [*["--editable"] * is_editable, f"{source}[{extra}]" if name == package and extra else source]
    return shlex.join(words)


def _wheel(name: str) -> str:
    return f"./{name.replace('-', '_')}-{distribution(name).version}-py3-none-any.whl"


def _origin(name: str) -> tuple[str, bool] | None:
    """Return the file or folder that pip installed a package from, and whether it is used in place (PEP 610)."""
    # A clone that is the current folder has metadata of its own beside those that pip wrote.
    version = distribution(name).version
    recorded = (each.read_text("direct_url.json") for each in distributions(name=name) if each.version == version)
    origin = json.loads(next(filter(None, recorded), '{"url": ""}'))
    url = urlsplit(origin["url"])
    place = Path(unquote(url.path))
    if url.scheme != "file" or not place.exists():
        return None
    return str(place), bool(origin.get("dir_info", {}).get("editable"))
