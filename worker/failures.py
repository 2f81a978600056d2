"""Errors that end a command of the server with a sentence, where anything else would be a fault of ours."""


class CommandFailed(RuntimeError):
    """The message says what is in the way."""
