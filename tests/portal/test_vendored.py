"""What others wrote is in the tree as they published it."""

import hashlib
import json

from api.portal.static_files import STATIC

_VENDOR = STATIC / "vendor"


def test_every_vendored_file_is_named_with_its_version_licence_and_hash() -> None:
    packages = json.loads((_VENDOR / "versions.json").read_text())
    named = {}
    for package, facts in packages.items():
        assert facts["version"] and facts["licence"], package
        named |= {name: file["sha256"] for name, file in facts["files"].items()}
    count_waiting = {
        file.relative_to(_VENDOR).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _VENDOR.rglob("*")
        if file.is_file()
    }
    count_waiting.pop("versions.json")
    assert count_waiting == named
