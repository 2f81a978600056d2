"""Panics of libraries written in Rust: tokenizers, safetensors, pydantic."""


def is_panic(error: BaseException) -> bool:
    """Return whether a library panicked: its error is not an Exception, and its class cannot be imported."""
    return type(error).__name__ == "PanicException"
