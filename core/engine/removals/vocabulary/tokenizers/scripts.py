"""Scripts of characters and of tokens, by the Unicode database that fontTools carries."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from fontTools import unicodedata as unicode_scripts

from secateur_wire.errors import InvalidRequest

_SHARED: Final = frozenset({"Zyyy", "Zinh", "Zzzz"})
"""Codes of what all scripts share, or none has: punctuation, digits, blanks, combining marks, unassigned characters."""
_LEAST_SHARE: Final = 0.01
"""Smallest share of a text's letters with which it uses a script; an encyclopaedia has single words of many scripts."""


@lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """Return the name of the script of a character, as `Latin`; None where scripts share it, as punctuation."""
    code = unicode_scripts.script(character)
    return None if code in _SHARED else unicode_scripts.script_name(code)


def scripts_of(spelled: bytes) -> frozenset[str]:
    """Return the scripts of the characters in a token's bytes, which may begin or end within a character.

    A character that is cut off counts with the scripts of the first and the last character that it can be.
    """
    return scripts_of_characters(spelled) | {
        name for name in map(script_of, _ends_of_range(spelled)) if name is not None
    }


def scripts_of_characters(spelled: bytes) -> frozenset[str]:
    """Return the scripts of the whole characters in a token's bytes."""
    text = spelled.decode(errors="ignore")
    return frozenset(name for name in map(script_of, text) if name is not None)


def used_scripts(characters: Mapping[str, int]) -> tuple[str, ...]:
    """Return the scripts with at least 1 % of the letters, most used first, by numbers of characters of each script."""
    total = sum(characters.values())
    used = [name for name, count in characters.items() if count >= _LEAST_SHARE * total]
    return tuple(sorted(used, key=lambda name: (-characters[name], name)))


def read_scripts(names: Iterable[str]) -> tuple[str, ...]:
    """Return the scripts' own names by names or codes, as `Latin` or `Latn`; raises InvalidRequest for unknown ones."""
    return tuple(dict.fromkeys(map(_read_script, names)))


def _read_script(name: str) -> str:
    code = name if unicode_scripts.script_name(name, None) else unicode_scripts.script_code(name, None)
    if code is None:
        raise InvalidRequest(
            f"scripts: {name[:100]!r} is not a script of Unicode: name it as Unicode does, for example 'Latin', "
            "'Cyrillic', 'Han', 'Devanagari'",
            param="scripts",
        )
    own_name: str = unicode_scripts.script_name(code)
    return own_name


def _ends_of_range(spelled: bytes) -> str:
    """Return the first and the last character that the bytes of a cut-off character at the end can begin."""
    for place in range(max(0, len(spelled) - 3), len(spelled)):
        length = _LENGTHS.get(spelled[place] >> 4, 0)
        if len(spelled) - place < length:
            begun = spelled[place:]
            ends = (begun + fill * (length - len(begun)) for fill in (b"\x80", b"\xbf"))
            return "".join(each.decode(errors="ignore") for each in ends)
    return ""


_LENGTHS: Final = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}
"""Bytes of a character in UTF-8 by the upper half of its first byte, where there is more than one."""
