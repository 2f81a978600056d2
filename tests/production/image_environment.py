"""A virtual environment like an image's: Python, the programs and modules of the image's lock, and nothing else.

It reads the packages that are installed here. Modules of packages that the image does not have are refused: pip, and
all that is for tests alone. On its PATH lie its own programs: there is no pip, no make, no git, and no shell.
"""

import re
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

from tests.production.files import ROOT

_OURS = {"secateur", "secateur-server"}
_MEASURES_TESTS = {"coverage"}
_REFUSAL = """import site, sys

REFUSED = frozenset({refused!r})


class Without:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in REFUSED else self._finder.find_spec(name, path, target)

    def find_distributions(self, context=None):
        if not hasattr(self._finder, "find_distributions") or getattr(context, "name", None) in REFUSED:
            return iter(())
        return self._finder.find_distributions() if context is None else self._finder.find_distributions(context)


site.addsitedir({packages!r})
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def locked_names(image: str) -> set[str]:
    """Names of the distributions that the Dockerfile installs into an image."""
    lock = (ROOT / "deploy" / "locks" / f"{image}.txt").read_text()
    return {_normal(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)} | _OURS


def write_environment(folder: Path, image: str, *, without: str | None = None) -> Path:
    """Return the folder that is the environment's PATH; it may lack one of the image's packages."""
    kept = (locked_names(image) | _MEASURES_TESTS) - {without}
    owners = packages_distributions()
    refused = sorted(
        name
        for module, names in owners.items()
        if not any(_normal(name) in kept for name in names) or module == "pip"
        for name in (module, *names)
    )
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    programs = folder / "bin"
    packages = folder / "lib" / base.name / "site-packages"
    programs.mkdir(parents=True)
    packages.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (programs / "python").symlink_to(base)
    installed = next(path for path in sys.path if path.endswith("site-packages") and path.startswith(sys.prefix))
    (packages / "in_the_image.py").write_text(_REFUSAL.format(refused=refused, packages=installed))
    (packages / "in_the_image.pth").write_text("import in_the_image\n")
    for distribution in distributions():
        if _normal(distribution.metadata["Name"]) not in kept:
            continue
        for entry in distribution.entry_points.select(group="console_scripts"):
            module, _, function = entry.value.partition(":")
            program = programs / entry.name
            program.write_text(
                f"#!{programs / 'python'}\nimport sys\nfrom {module} import {function.partition('.')[0].strip()}\n"
                f"sys.exit({function.partition('[')[0].strip()}())\n"
            )
            program.chmod(0o755)
    return programs


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
