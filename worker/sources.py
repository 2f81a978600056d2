"""The fetch stage: what a claim names is there, and is still what was registered."""

import hashlib

from core.errors import UnusableDataset, UnusableModel
from core.jobs.queue import Claim, TextReference
from core.registry.folders import content_hash
from worker.protocol import ModelSource, TextSource


def fetch_model(claim: Claim) -> ModelSource:
    """The model folder, its whole content hashed again.

    A report claims to reproduce a content hash, and nothing cheaper than reading the bytes proves it (sizes and times
    survive an edit through a hard link). It costs one read, from which the runner's own then finds the files cached.
    Raises UnusableModel.
    """
    if not claim.model.path.is_dir():
        raise UnusableModel(f"The files of model {claim.model.name!r} are no longer there.", param="model")
    if content_hash(claim.model.path) != claim.model.revision:
        raise UnusableModel(
            f"The files of model {claim.model.name!r} have changed since it was registered; register them under a new "
            "name.",
            param="model",
        )
    return ModelSource(path=claim.model.path, name=claim.model.name, revision=claim.model.revision)


def fetch_text(text: TextReference, param: str) -> TextSource:
    """The text file, hashed again. Raises UnusableDataset."""
    if not text.path.is_file():
        raise UnusableDataset(f"The file of dataset {text.name!r} is no longer there.", param=param)
    with open(text.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != text.sha256:
        raise UnusableDataset(f"The file of dataset {text.name!r} has changed since it was registered.", param=param)
    return TextSource(name=text.name, path=text.path, format=text.format, text_field=text.text_field)
