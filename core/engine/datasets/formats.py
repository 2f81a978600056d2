"""Formats of data sets. Their readers are in other modules, so that naming a format loads none of them."""

from pathlib import Path

from secateur_wire.errors import UnusableDataset

CHAT_JSONL = "chat_jsonl"
CHAT_PARQUET = "chat_parquet"
CHAT_FORMATS = (CHAT_JSONL, CHAT_PARQUET)
"""Formats of conversations, which a model's chat template turns into text."""
TEXT_FORMATS = ("text", "jsonl", "parquet")
DOCUMENT_END = "\n\n"
"""Text that ends every document where documents are joined to one text."""
IMAGE_FOLDER = "image_folder"
IMAGE_PARQUET = "image_parquet"
IMAGE_FORMATS = (IMAGE_FOLDER, IMAGE_PARQUET)
_SUFFIXES = {
    ".txt": "text",
    ".md": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def detect_format(path: Path) -> str:
    """Return the format of a folder, or of a file by its suffix; raises UnusableDataset naming the known formats."""
    if path.is_dir():
        return IMAGE_FOLDER
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UnusableDataset(
            f"{path.name}: suffix {path.suffix!r} is not known; use {', '.join(sorted(_SUFFIXES))} or name the format "
            f"({', '.join((*TEXT_FORMATS, *CHAT_FORMATS, *IMAGE_FORMATS))})",
            param="format",
        ) from None
