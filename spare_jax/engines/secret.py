"""Keeps a server's key out of what is shown and stored.

A server that is sent a key can send it back, in an error message or in a text: whole, in part, or encoded in some way,
so that a search for the key itself would not find it.
"""

import base64
import binascii
import html
import re
import urllib.parse

_PART = 6  # so many characters of the key in a row are not shown
_WHOLE = 8  # shorter keys ("EMPTY", "none") are placeholders, and no secret

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\(.)", re.DOTALL)
_RUN = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX_RUN = re.compile(r"(?:[0-9a-fA-F]{2}[\s:,-]?){4,}")


class Secret:
    """A key that must not be shown; an empty one is in no text."""

    def __init__(self, key: str):
        self.key = key
        self._parts = set()
        for reduced in filter(None, _reduced(key)):
            length = min(_PART, len(reduced))
            self._parts |= {reduced[i : i + length] for i in range(len(reduced) - length + 1)}
        self._parts |= {part[::-1] for part in self._parts}

    def is_in(self, text: str) -> bool:
        """Whether a text holds the whole key, as it is or in base64."""
        if len(self.key) < _WHOLE:
            return False
        return self.key in text or any(form in text for form in _in_base64(self.key))

    def hidden(self, text: str) -> str:
        """A text that may be shown: with stars in place of the key, or a notice in place of the whole text if it still
        holds a part of the key: escaped, in base64 or hexadecimal, backwards, or with other characters in between."""
        if not self._parts:
            return text
        text = text.replace(self.key, "***")
        for reading in _readings(text):
            if any(part in reduced for reduced in _reduced(reading) for part in self._parts):
                return "(its text is withheld: it repeats a part of the key)"
        return text


def _reduced(text: str) -> tuple[str, str]:
    """A text in lower case without white space, and the same with letters and digits only."""
    close = "".join(text.casefold().split())
    return close, "".join(character for character in close if character.isalnum())


def _readings(text: str) -> set[str]:
    """A text and its possible decodings."""
    forms = {text}
    for _ in range(3):  # an escape of an escape
        forms |= {read(form) for form in forms for read in (_unescaped, urllib.parse.unquote, html.unescape)}
    decoded = {reading for form in forms for reading in (*_from_base64(form), *_from_hex(form))}
    return forms | decoded


def _unescaped(text: str) -> str:
    """The text with its JSON escapes decoded."""

    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else {"n": "\n", "t": "\t", "r": "\r"}.get(match[3], match[3])

    return _ESCAPE.sub(character, text)


def _from_base64(text: str) -> list[str]:
    """The decodings of runs of base64 characters, from each of four offsets."""
    decoded = []
    for run in _RUN.findall(text):
        run = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            whole = run[start : start + (len(run) - start) // 4 * 4]
            decoded.append(base64.b64decode(whole).decode("latin-1"))
    return decoded


def _from_hex(text: str) -> list[str]:
    """The decodings of runs of hexadecimal digits, from each of two offsets."""
    decoded = []
    for run in _HEX_RUN.findall(text):
        digits = re.sub(r"[^0-9a-fA-F]", "", run)
        for start in range(2):
            pairs = digits[start : start + (len(digits) - start) // 2 * 2]
            decoded.append(binascii.unhexlify(pairs).decode("latin-1"))
    return decoded


def _in_base64(key: str) -> list[str]:
    """How the key looks inside of a longer text in base64, by its offset modulo 3; without the characters at both ends,
    which depend on the neighbours too."""
    forms = []
    for before in range(3):
        coded = base64.b64encode(bytes(before) + key.encode()).decode().rstrip("=")
        forms.append(coded[(0, 2, 3)[before] : len(coded) - (1 if (before + len(key)) % 3 else 0)])
    return forms + [form.replace("+", "-").replace("/", "_") for form in forms]
