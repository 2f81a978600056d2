"""Errors that end a command of the server with a sentence; any other error is a bug."""


class CommandFailed(RuntimeError):
    """Failure of a command; the message names the cause."""
