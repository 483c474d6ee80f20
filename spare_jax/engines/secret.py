"""A key, and whether a text of somebody else's shows any of it.

Whoever is sent a key can send it back: whole, in part, or in another dress, so that a search for the key finds nothing.
"""

import base64
import binascii
import html
import re
import urllib.parse

_PART = 6  # characters of the key that are too many to show
_WHOLE = 8  # shorter keys ("EMPTY", "none") are no secrets that a model's text could give away

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\(.)", re.DOTALL)
_RUN = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX_RUN = re.compile(r"(?:[0-9a-fA-F]{2}[\s:,-]?){4,}")


class Secret:
    """A key that nothing may show; an empty one shows nowhere."""

    def __init__(self, key: str):
        self.key = key
        self._parts = set()
        for reduced in filter(None, _reduced(key)):
            length = min(_PART, len(reduced))
            self._parts |= {reduced[i : i + length] for i in range(len(reduced) - length + 1)}
        self._parts |= {part[::-1] for part in self._parts}

    def is_in(self, text: str) -> bool:
        """Whether the whole key stands in a text, as it is or in base64."""
        if len(self.key) < _WHOLE:
            return False
        return self.key in text or any(form in text for form in _in_base64(self.key))

    def hidden(self, text: str) -> str:
        """A text to show: with stars in the place of the key, and withheld where it holds a part of it, in any order of
        escapes, in base64 or hexadecimal, backwards, or with other characters in between."""
        if not self._parts:
            return text
        text = text.replace(self.key, "***")
        for reading in _readings(text):
            if any(part in reduced for reduced in _reduced(reading) for part in self._parts):
                return "(its text is withheld: it repeats a part of the key)"
        return text


def _reduced(text: str) -> tuple[str, str]:
    """A text in small letters without its blanks, and the letters and digits of it alone."""
    close = "".join(text.casefold().split())
    return close, "".join(character for character in close if character.isalnum())


def _readings(text: str) -> set[str]:
    """A text and what it may be read as."""
    forms = {text}
    for _ in range(3):  # an escape of an escape
        forms |= {read(form) for form in forms for read in (_unescaped, urllib.parse.unquote, html.unescape)}
    decoded = {reading for form in forms for reading in (*_from_base64(form), *_from_hex(form))}
    return forms | decoded


def _unescaped(text: str) -> str:
    """Without JSON's escapes."""

    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else {"n": "\n", "t": "\t", "r": "\r"}.get(match[3], match[3])

    return _ESCAPE.sub(character, text)


def _from_base64(text: str) -> list[str]:
    """What runs of a text say in base64, read from each of four places."""
    found = []
    for run in _RUN.findall(text):
        run = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            whole = run[start : start + (len(run) - start) // 4 * 4]
            found.append(base64.b64decode(whole).decode("latin-1"))
    return found


def _from_hex(text: str) -> list[str]:
    found = []
    for run in _HEX_RUN.findall(text):
        digits = re.sub(r"[^0-9a-fA-F]", "", run)
        for start in range(2):
            found.append(binascii.unhexlify(digits[start : start + (len(digits) - start) // 2 * 2]).decode("latin-1"))
    return found


def _in_base64(key: str) -> list[str]:
    """The key inside of base64, whatever stands before it: without the characters that its neighbours share."""
    found = []
    for before in range(3):
        coded = base64.b64encode(bytes(before) + key.encode()).decode().rstrip("=")
        found.append(coded[(0, 2, 3)[before] : len(coded) - (1 if (before + len(key)) % 3 else 0)])
    return found + [form.replace("+", "-").replace("/", "_") for form in found]
