"""Search for models on the hub by words, as a help in forms: fast, cached for a while, and optional.

The hub is asked without a token, so the results are public. If it does not answer in time, the result is empty, and it
is not asked again for a while.
"""

import threading
import time
from dataclasses import dataclass
from typing import Final

from core.service.sources.hub_errors import translated_errors
from core.service.sources.hub_outage import HubOutage
from core.settings import Settings
from secateur_wire.errors import SecateurError

MOST_MATCHES: Final = 8
FEWEST_CHARACTERS: Final = 3
"""Minimum length of the words to search for."""
_REMEMBERED_SECONDS: Final = 300.0
_MOST_REMEMBERED: Final = 1000


@dataclass(frozen=True)
class HubMatch:
    """Repository of a model with safetensors; `downloads` counts the last month, None where the hub gives no number."""

    name: str
    downloads: int | None
    is_gated: bool


class HubSearch:
    """Searches of one process, safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._address = f"{settings.hub_endpoint.rstrip('/')}/api/models"
        self._seconds = settings.hub_search_seconds
        self._matches: dict[str, tuple[float, tuple[HubMatch, ...]]] = {}
        self._outage = HubOutage()
        self._lock = threading.Lock()

    def known(self, words: str) -> tuple[HubMatch, ...] | None:
        """Return the cached result; None where the hub has to be asked."""
        if not self._seconds or len(words.strip()) < FEWEST_CHARACTERS:
            return ()
        with self._lock:
            when, matches = self._matches.get(_key(words), (0.0, None))
            if matches is not None and time.monotonic() < when + _REMEMBERED_SECONDS:
                return matches
            return () if self._outage.seconds_left else None

    def search(self, words: str) -> tuple[HubMatch, ...]:
        """Return the matching models with the most downloads; waits for the hub as long as the settings allow."""
        known = self.known(words)
        if known is not None:
            return known
        matches = self._ask(_key(words))
        with self._lock:
            if matches is None:
                self._outage.begin()
                return ()
            if len(self._matches) >= _MOST_REMEMBERED:
                self._matches.clear()
            self._matches[_key(words)] = (time.monotonic(), matches)
        return matches

    def _ask(self, words: str) -> tuple[HubMatch, ...] | None:
        from huggingface_hub import get_session

        wanted: dict[str, str | int] = {
            "search": words,
            "filter": "safetensors",
            "sort": "downloads",
            "limit": MOST_MATCHES,
        }
        try:
            with translated_errors("model", words, None, owner=None):
                answer = get_session().get(self._address, params=wanted, timeout=self._seconds)  # without any token
                answer.raise_for_status()
                listed = answer.json()
        except SecateurError:
            return None
        matches = [_read(each) for each in listed] if isinstance(listed, list) else []
        return tuple(each for each in matches if each is not None)[:MOST_MATCHES]


def _read(entry: object) -> HubMatch | None:
    """Return an entry of the hub's answer, whose form is not trusted."""
    name = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or name.count("/") != 1:
        return None
    downloads = entry.get("downloads")
    return HubMatch(name, downloads if isinstance(downloads, int) else None, bool(entry.get("gated")))


def _key(words: str) -> str:
    return " ".join(words.casefold().split())
