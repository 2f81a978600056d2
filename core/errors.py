"""Errors of the service, those of `secateur_wire.errors`: codes and classes are the client's too."""

from secateur_wire.errors import *  # noqa: F403
