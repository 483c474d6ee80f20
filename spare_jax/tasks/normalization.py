r"""One spelling for mathematical text that can be written in several ways.

"$\dfrac12$", "½" and "\frac{1}{2}" become "\frac{1}{2}"; digits and punctuation of all scripts become ASCII; fonts,
sizes, dollar signs and thin spaces are removed. The meaning stays: "3²" becomes "3^{2}" and "√3" becomes "\sqrt 3".
"""

import re
import unicodedata

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "―": "-", "√": r"\sqrt ", "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]", "π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "✕": r"\times ", "÷": "/", "⁄": "/",
    "∕": "/", "±": r"\pm ", "∓": r"\mp ", "≤": r"\leq ", "≥": r"\geq ", "⩽": r"\leq ", "⩾": r"\geq ",
    "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": " ", "∗": r"\cdot ", "≠": r"\neq ",
    "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "°": r"^{\circ}", "º": r"^{\circ}", "∘": r"^{\circ}", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ", "∣": "|", "′": "'",
    "∖": r"\setminus ", "∠": r"\angle ", "△": r"\triangle ", "。": ".", "、": ",", "،": ",", "٫": ".",
    "٬": ",", "؛": ";", "｡": ".", "！": ".", "∶": ":", "µ": r"\mu ", "∑": r"\sum ", "∫": r"\int ",
    "→": r"\to ", "⇒": r"\Rightarrow ", "∏": r"\prod ", "∂": r"\partial ", "∇": r"\nabla ", "…": r"\ldots ",
}  # fmt: skip
for _code in (*range(0x391, 0x3AA), *range(0x3B1, 0x3CA)):  # Greek letters, capital and small
    _letter = unicodedata.name(chr(_code), "").replace("LAMDA", "LAMBDA").split(" ")
    if len(_letter) == 4:
        _SYMBOLS[chr(_code)] = f"\\{_letter[3].lower() if _letter[1] == 'SMALL' else _letter[3].capitalize()} "
_SYMBOLS["ς"] = r"\sigma "

_ROOT = re.compile(r"([√∛∜])\s?([0-9]{1,30}(?:\.[0-9]{1,30})?)")
_RAISED = re.compile(r"[⁰¹²³⁴-⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
_LOWERED = re.compile(r"[₀-₉₊₋₌₍₎ₐₑₒₓₕₖₗₘₙₚₛₜᵢⱼ]+")
# Letters of scripts that are written without blanks: a number ends before them.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_BESIDE = re.compile(rf"(?<=[{_UNSPACED}])(?=[0-9A-Za-z\\$+-])|(?<=[0-9A-Za-z}}])(?=[{_UNSPACED}])")


def ascii_text(text: str) -> str:
    """Text with the digits, blanks, punctuation and mathematical signs of all scripts in ASCII and LaTeX.

    In linear time. Other letters stay; a blank is put between Chinese, Japanese or Korean letters and numbers or Latin
    letters beside them.
    """
    if text.isascii():
        return text
    text = _ROOT.sub(r"\1{\2}", text)  # of the whole number: "√16" is no \sqrt 1 6
    text = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}".replace("−", "-"), text)
    text = _LOWERED.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}".replace("−", "-"), text)
    return _BESIDE.sub(" ", text.translate(_IN_ASCII))


class _Table(dict[int, str]):
    """A table for `str.translate` that works out each character once, when it first occurs."""

    def __missing__(self, code: int) -> str:
        self[code] = spelling = _in_ascii(chr(code))
        return spelling


_IN_ASCII = _Table()


def _in_ascii(character: str) -> str:
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind in ("Zs", "Zl", "Zp"):
        return "\n" if kind != "Zs" else " "
    if kind == "Cf":  # joiners and marks of direction show nothing
        return ""
    plain = unicodedata.normalize("NFKC", character)
    if kind == "No" and "⁄" in plain:
        top, bottom = plain.split("⁄")
        return rf"\frac{{{top}}}{{{bottom or 1}}}"
    if plain != character and len(plain) <= 4:
        return "".join(map(_spelled, plain))
    return character


def _spelled(character: str) -> str:
    return _SYMBOLS.get(character, character)


# A letter in upright type behind a number is a unit: "5\text{ m}". Elsewhere upright type changes nothing.
_UNIT_LETTERS = {"m": "metres", "g": "grams", "s": "seconds", "h": "hours", "L": "litres", "l": "litres"}
_UNIT_LETTER = re.compile(
    r"(?<=[0-9})])(?:\s|\\[, ;:]|~)*\\(?:text|mbox|textrm|textup|mathrm|rm)\s?\{\s*([mgshLl])\s*\}(?!\s*[({])"
)
# Units with a quotient, which would read as letters: "m/s^2", "\mathrm{kg/m^3}".
_UNIT_POWER = r"(?:\s?\^\s?(?:\{\s?-?[0-9]\s?\}|[0-9]))?"
_RATED = rf"(?:[kcm]?[mg]|mg|[mk]?L|ft|mi|N|J){_UNIT_POWER}\s?/\s?(?:s|h|hr|min|sec|c?m|kg|mol){_UNIT_POWER}"
_UNIT_QUOTIENT = re.compile(
    r"(?<=[0-9})])(?:\s|\\[, ;:]|~)*"
    rf"(?:\\(?:text|mbox|textrm|mathrm|rm)\s?\{{(?:\s|\\[, ])*{_RATED}\s*\}}{_UNIT_POWER}|(?<=\s){_RATED}(?=[\s.$]*$))"
)
_SPELLINGS = (
    (re.compile(r"\\[()\[\]]|(?<![\w^*)\]}])\*\*(?=\S)|(?<=\S)\*\*(?=[\s.,;:!?]|$)"), " "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"^\*(?=\S)([^*]+)(?<=\S)\*(?=[\s.]*$)|^[\"“]([^\"“”]+)[\"”](?=[\s.]*$)"), r"\1\2"),
    (re.compile(r"^(\W*)(?:negative|minus) (?=[$0-9.\\])", re.IGNORECASE), r"\1-"),
    (re.compile(r"(?<=[-+])\s?\\?\$"), ""),
    (re.compile(r"\\?\$"), " "),
    (re.compile(r"\\!|\{\}|\\(?:displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])"), ""),
    (re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\.?"), ""),
    (re.compile(r"\\(?:quad|qquad|enspace|thinspace|,|;|:|>| |/)|~|\\[hv]space\*?\{[^{}]{0,20}\}"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\{([^{}]{1,99})\\choose(?![a-zA-Z])([^{}]{1,99})\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\{([^{}]{1,99})\\over(?![a-zA-Z])([^{}]{1,99})\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\(?=[%#&])"), ""),
    (re.compile(r"\^\s?\{\s?\\(?:circ|degree)\s?\}|\^\s?\\circ(?![a-zA-Z])|\^?\\(?:text)?degree(?![a-zA-Z])"), "°"),
    (re.compile(r"°\s?(?:\\(?:text|mathrm)\s?\{\s?[CF]\s?\}|[CF](?![A-Za-z]))"), "°"),
    (re.compile(r"\\(?:dfrac|tfrac|cfrac|frac)(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\[dt]?binom(?![a-zA-Z])"), r"\\binom"),
    (re.compile(r"\\(?:leqslant|leqq|le)(?![a-zA-Z])"), r"\\leq "),
    (re.compile(r"\\(?:geqslant|geqq|ge)(?![a-zA-Z])"), r"\\geq "),
    (re.compile(r"\\(?:neq|ne)(?![a-zA-Z])|\\not\s?="), r"\\neq "),
    (re.compile(r"\^\s?(?:\{\s?\\prime\s?\}|\\prime(?![a-zA-Z]))"), "'"),
    (re.compile(r"(?<=[0-9{ ])([AaPp])(?:\.\s?[Mm]\.?(?![A-Za-z])|M\b(?=[\s.}]*$))"), lambda m: m[1].lower() + "m"),
    (re.compile(r"\\pmod\s?([0-9A-Za-z]{1,9})"), r"\\pmod{\1}"),
    (re.compile(r"\bm\s?(?=\\angle)"), ""),
    (re.compile(r"\bsq\."), "sq"),
    (re.compile(r"<="), r"\\leq "),
    (re.compile(r">="), r"\\geq "),
    (re.compile(r"!=(?!=)"), r"\\neq "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\(?:varnothing|empty)(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"\\(?:lvert|rvert|vert|mid)(?![a-zA-Z])"), "|"),
    (re.compile(r"\\(?:lbrace)(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\(?:cdotp|ast|times|cdot)(?![a-zA-Z])|\*"), r" \\cdot "),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\colon(?![a-zA-Z])"), ":"),
    (re.compile(r"\\(?:dotsc|dotsb|dots|cdots)(?![a-zA-Z])|\.\.\."), r"\\ldots "),
    (re.compile(r"\\(?:bar|overline)\s?(?=[0-9{])|(?<=[0-9.])\\dot\s?(?=[0-9{])"), r"\\overline "),
    (re.compile(r"(?<![0-9])\.(?=\\overline)"), "0."),
    (re.compile(r"\\overline ([0-9])"), r"\\overline {\1}"),
    (re.compile(r"\\frac\s*([0-9])"), r"\\frac{\1}"),
    (re.compile(r"(\\frac\{[^{}]{1,99}\})\s*([0-9a-zA-Z])"), r"\1{\2}"),
)  # fmt: skip
_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textup|textsf|texttt|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathnormal|"
    r"boldsymbol|bm|bold|pmb|emph|operatorname\*?|underline|ensuremath|boxed|fbox)(?:\s?\{([^{}]{0,200})\}|\s([A-Za-z0-9])(?![A-Za-z0-9]))"
)
_FONT_NAME = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|boldsymbol|bm|bold|pmb|textbf|text|mbox|boxed|fbox)\s?(?=\{)"
)  # with groups inside
_SWITCH = re.compile(r"\\(?:bf|rm|it|sf|tt|em|bfseries|boldmath)(?![a-zA-Z])\s?")
_ESCAPED = re.compile(r"\\{2,}")
_ROW_END = re.compile(r"\\\\(?:\[[^\]]{0,20}\])?")
_BLANKS = re.compile(r"\s+")


def normalized(text: str) -> str:
    """A short text (an answer) in the one spelling that the module's docstring describes."""
    text = ascii_text(text)
    # Two backslashes end a row of a matrix; elsewhere they are one that was escaped.
    text = _ROW_END.sub(r" \\cr ", text) if "\\begin" in text else _ESCAPED.sub(r"\\", text)
    text = _UNIT_QUOTIENT.sub(" units", text)
    text = _UNIT_LETTER.sub(lambda m: f" {_UNIT_LETTERS[m[1]]} ", text)
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    for _ in range(3):  # fonts inside fonts
        text, count = _FONT.subn(lambda m: f" {m[1]} " if m[1] is not None else f" {m[2]} ", text)
        if not count:
            break
    text = _BLANKS.sub(" ", _SWITCH.sub("", _FONT_NAME.sub("", text))).strip()
    return text[1:-1].strip() if _is_group(text) else text


def _is_group(text: str) -> bool:
    """Whether one pair of braces holds all of a text."""
    if text[:1] != "{" or text[-1:] != "}" or text[-2:] == r"\}":
        return False
    depth = 0
    for i, match in enumerate(braces := list(re.finditer(r"\\.|[{}]", text))):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return i == len(braces) - 1
    return False


def canonical_text(text: str) -> str:
    """`normalized` without the final full stop and without blanks that separate nothing. (That of "1, 200" stays, which
    is not 1,200.)"""
    text = normalized(text).rstrip(" .")
    return re.sub(r"(?<![A-Za-z0-9,]) |(?<=,) (?![0-9]{3}(?![0-9]))| (?![A-Za-z0-9])", "", text)
