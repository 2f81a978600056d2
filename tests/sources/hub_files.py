"""Repositories and their files as the hub describes them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LARGE_BYTES = 2000
"""Size from which on a file lies in the hub's file storage."""


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_of(data: bytes) -> dict[str, Any] | None:
    if len(data) < LARGE_BYTES:
        return None
    return {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    lfs = lfs_of(data)
    return {"type": "file", "path": path, "size": len(data), "oid": git_blob(data)} | ({"lfs": lfs} if lfs else {})


@dataclass
class Repository:
    """`branches` name commits; `commits` hold files by path. Private and gated ones want a token that may read them."""

    kind: str
    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit of these files and nothing else."""
        facts = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        name = hashlib.sha1(json.dumps([self.name, facts]).encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def commit_folder(self, folder: Path, branch: str = "main") -> str:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        return self.commit({name: path.read_bytes() for name, path in files.items()}, branch)


def repository_info(repository: Repository, commit: str) -> dict[str, Any]:
    siblings = []
    for path, data in sorted(repository.commits[commit].items()):
        entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_blob(data)}
        if lfs := lfs_of(data):
            entry["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": 130}
        siblings.append(entry)
    readme = repository.commits[commit].get("README.md", b"").decode()
    card = readme.split("---")[1] if readme.startswith("---") else "{}"
    return {
        "id": repository.name,
        "sha": commit,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "siblings": siblings,
        "cardData": yaml.safe_load(card) or {},
        "tags": [],
        "downloads": 0,
        "likes": 0,
    }
