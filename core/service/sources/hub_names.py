"""Names on the model hub: repositories, branches and commits."""

import re
from typing import Literal

from secateur_wire.errors import UnknownDataset, UnknownModel

Kind = Literal["model", "dataset"]

_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def is_branch(revision: str) -> bool:
    """Return whether a branch can have this name; the name of a commit cannot be one."""
    return _is_revision(revision) and not is_commit(revision)


def _is_revision(revision: str) -> bool:
    return _REVISION.fullmatch(revision) is not None and ".." not in revision and "//" not in revision


def is_repository(name: str) -> bool:
    """Return whether the hub allows a repository of this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # lazily

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def split_reference(reference: str, kind: Kind, param: str) -> tuple[str, str | None]:
    """Split `org/name[@revision]` into repository and revision; raises UnknownModel or UnknownDataset if invalid."""
    repository, at, revision = reference.partition("@")
    unknown = UnknownModel if kind == "model" else UnknownDataset
    if "/" not in repository or not is_repository(repository):
        raise unknown(
            f"{param} {reference!r} is not a name of the hub, which has the form org/name: letters, digits, '-', '_' "
            "and '.', at most 96 characters. Models and data on a disk are registered first, under a name",
            param=param,
        )
    if at and not _is_revision(revision):
        raise unknown(
            f"{param} {reference!r}: {revision!r} is not a revision (a branch, a tag or a commit)", param=param
        )
    return repository, revision or None
