"""Errors that end a command of the server with a sentence, where anything else would be a fault of ours."""


class CommandFailed(RuntimeError):
    """Failure of a command; the message says what is in the way."""
