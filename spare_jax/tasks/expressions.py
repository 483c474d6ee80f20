r"""A parser of answers in LaTeX or plain text. It reads a text whole or raises `Unreadable`.

    answer:     item ("," item)*            an unordered list; "and", "or" and ";" are commas too
    item:       side (relation side)*       x = 5, 1 < x \leq 2, x \in S
    side:       sum (\cup sum)*
    sum:        an expression with its usual precedences, or a tuple, interval, set or matrix

Nodes are tuples whose first entry is their kind. Words behind an item ("cm", "square units") are ignored, as behind a
plain number; an item of words alone is a text.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from spare_jax.tasks.normalization import normalized
from spare_jax.tasks.numbers import SCALES, UNITS, is_filler

Node = tuple[Any, ...]

INFINITY: Node = ("infinity",)
_FUNCTIONS = frozenset(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp max min gcd lcm det
    """.split()  # noqa: SIM905
)
_NAMES = {"pi": ("pi",), "infty": INFINITY, "infinity": INFINITY, "emptyset": ("set",)}
_GREEK = frozenset(
    """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar
    """.split()  # noqa: SIM905
)
_RELATIONS = {"=": "=", "<": "<", ">": ">", "leq": "<=", "geq": ">=", "neq": "!=", "in": "in", "approx": "="}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>
        (?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|(?<![_^])[1-9][0-9]{0,2}(?:[ ][0-9]{3})+(?![0-9])|[0-9]+)
        (?:\.[0-9]+|\.(?=[/)+*-]))?
        |\.[0-9]+)
    (?P<power>[eE][-+]?[0-9]{1,3}(?![0-9a-zA-Z.]))?
    |(?P<command>\\[A-Za-z]+|\\[{}|])
    |(?P<letters>[^\W\d_]{3,}(?:['’-][^\W\d_]{2,})+|[^\W\d_]+)
    |(?P<sign>[^\s]))""",
    re.VERBOSE,
)
_OPEN = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\langle": r"\rangle",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
}
_CLOSERS = frozenset((")", "]", "}", r"\}", r"\rangle"))
_MARKED = (r"\overline", r"\angle", r"\triangle", r"\hat", r"\vec", r"\dot", r"\ddot", r"\tilde")  # other symbols
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
          "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16"}  # fmt: skip
_DEEPEST = 60


class Unreadable(ValueError):
    """The text holds something that the grammar does not cover."""


def read(text: str) -> tuple[Node, ...]:
    """The items of an answer.

    Raises:
      Unreadable: it is no answer that the grammar covers.
    """
    reader = _Reader(_tokens(normalized(text).rstrip(" .")))
    items = reader.items()
    if reader.at < len(reader.tokens):
        raise Unreadable(f"at {reader.tokens[reader.at][1]!r}")
    return items


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind in ("number", "power"):
            tokens.append(("number", match[0].strip()))
        elif kind == "letters":
            tokens += _letters(match["letters"])
        elif kind == "command":
            tokens.append(_command(match["command"]))
        elif kind:
            tokens.append(("sign", match["sign"]))
    return tokens


def _command(command: str) -> tuple[str, str]:
    name = command[1:]
    return ("name", name) if name in _FUNCTIONS or name in _NAMES or name in _GREEK else ("command", command)


def _letters(run: str) -> list[tuple[str, str]]:
    """A run of letters as tokens: a function or constant, a word, the name of a segment, or a product of letters."""
    if run in _FUNCTIONS or run in ("pi", "infinity"):
        return [("name", run)]
    if run == "sqrt":
        return [("command", r"\sqrt")]
    if len(run) == 1 and run.isascii():
        return [("letter", run)]
    if run.isascii() and run.isupper() and len(run) <= 3 and run not in UNITS:
        return [("segment", run)]
    is_product = (
        run.isascii() and run.islower() and run not in UNITS and run.lower() not in ("or", "is", "of", "no", "to")
    )
    if is_product and (len(run) == 2 or (len(run) <= 5 and list(run) == sorted(run) and _few_words(run))):
        return [("letter", letter) for letter in run]
    return [("word", run)]


def _few_words(run: str) -> bool:
    """Whether letters in alphabetical order are variables, as "abc" and "xyz", rather than a word, as "most"."""
    return not re.search(r"[aeiou]", run[1:])


class _Reader:
    """A recursive-descent parser over the tokens of one text."""

    def __init__(self, tokens: Sequence[tuple[str, str]]):
        self.tokens = list(tokens)
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.in_trig = False

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "")

    def next(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def takes(self, *texts: str) -> bool:
        if self.peek()[1] in texts and self.peek()[0] != "end":
            self.at += 1
            return True
        return False

    def needs(self, text: str) -> None:
        if not self.takes(text):
            raise Unreadable(f"{text!r} is missing before {self.peek()[1]!r}")

    # Answers

    def items(self) -> tuple[Node, ...]:
        nodes: list[Node] = [self.item()]
        while (separator := self.separator()) is not None:
            item = self.item()
            if separator == "or":  # two solutions, or two ways to write one
                nodes[-1] = ("alternatives", *(nodes[-1][1:] if nodes[-1][0] == "alternatives" else nodes[-1:]), item)
            else:
                nodes.append(item)
        return tuple(nodes)

    def separator(self) -> str | None:
        last = None
        while self.peek()[1] in (",", ";", "and", "or") and self.peek()[0] in ("sign", "word"):
            last = self.next()[1]
        return last

    def item(self) -> Node:
        words = self.words_alone()
        if words and words[0] == "text":
            return words
        sides, relations = [words or self.side()], []
        scale = self.unit()
        while (relation := self.relation()) is not None:
            relations.append(relation)
            sides.append(self.side())
            scale = self.unit()
        if scale != 1:
            sides[-1] = ("product", sides[-1], ("number", Fraction(scale)))
        if self.peek()[1] == ":" and not relations:
            parts = [sides[0]]
            while self.takes(":"):
                parts.append(self.sum())
            return ("ratio", *parts)
        return ("relation", tuple(relations), tuple(sides)) if relations else sides[0]

    def words_alone(self) -> Node | None:
        """An item of words alone, up to a comma or the end, as a text; or words before "=", as a symbol."""
        end = self.at
        while self.peek(end - self.at)[0] in ("word", "letter", "segment") or self.peek(end - self.at)[1] in ("-", "'"):
            end += 1
        taken = self.tokens[self.at : end]
        if not any(kind == "word" and text not in ("and", "or") for kind, text in taken):
            return None
        if taken[0][0] != "word" and not any(kind == "word" for kind, _ in taken[:2]):
            return None
        kind, behind = self.peek(end - self.at)
        if kind != "end" and behind not in (",", ";", ")", "="):
            return None
        self.at = end
        words = " ".join(text for _, text in taken if text not in ("-", "'"))
        # Not in lower case, so that it equals the same symbol on the other side of the equation.
        return ("symbol", words) if behind == "=" else ("text", words.lower())

    def relation(self) -> str | None:
        kind, text = self.peek()
        name = _RELATIONS.get(text.removeprefix("\\")) if kind in ("sign", "command") else None
        if text == "in":  # the word
            return None
        self.at += name is not None
        return name

    def unit(self) -> int:
        """Take the words behind an item; returns their factor, 10**6 for "million"."""
        scale, first = 1, True
        while self.peek()[0] == "word" and self.peek()[1] not in ("and", "or"):
            word = self.next()[1]
            if not is_filler(word, first):
                raise Unreadable(f"the word {word!r}")
            scale *= SCALES.get(word.lower(), 1) if first else 1
            first = False
            if self.peek()[1] == "^":
                self.at += 1
                braced = self.takes("{")
                if self.next()[1] not in ("2", "3"):
                    raise Unreadable("the power of a unit")
                if braced:
                    self.needs("}")
            if self.peek()[1] == "/" and self.peek(1)[0] == "word":
                self.at += 1
        return scale

    def side(self) -> Node:
        parts = [self.sum()]
        while self.takes(r"\cup"):
            parts.append(self.sum())
        if len(parts) == 1 and self.takes(r"\setminus", r"\backslash"):
            return ("difference", parts[0], self.sum())
        return parts[0] if len(parts) == 1 else ("union", *parts)

    # Expressions

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("it is nested too deeply")
        sign = self.peek()[1]
        if sign in (r"\pm", r"\mp"):
            self.at += 1
            total: Node = ("plus_minus" if sign == r"\pm" else "minus_plus", ("number", Fraction(0)), self.product())
        else:
            total = self.product()
        while (sign := self.peek()[1]) in ("+", "-", r"\pm", r"\mp"):
            self.at += 1
            term = self.product()
            kind = {"+": "sum", "-": "difference", r"\pm": "plus_minus", r"\mp": "minus_plus"}[sign]
            total = (kind, total, term)
        self.depth -= 1
        return total

    def product(self) -> Node:
        if self.takes("-"):
            return ("negative", self.product())
        if self.takes("+"):
            return self.product()
        total, last_is_number = self.factor(), self.tokens[self.at - 1][0] == "number"
        while True:
            if self.takes(r"\cdot"):
                total = ("product", total, self.signed_factor())
            elif self.takes("/"):
                total = ("quotient", total, self.signed_factor())
            elif self.starts_factor():
                if self.peek()[0] == "number" and (last_is_number or total[0] == "number"):
                    raise Unreadable("two numbers side by side")
                if last_is_number and total[0] == "number" and (mixed := self.mixed(total)) is not None:
                    total = mixed
                else:
                    factor = self.factor()
                    applied = total[0] == "symbol" and factor[:3] == ("tuple", "(", ")")  # C(5,2)
                    total = ("applied", total[1], factor) if applied else ("product", total, factor)
            else:
                return total
            last_is_number = self.tokens[self.at - 1][0] == "number"

    def mixed(self, whole: Node) -> Node | None:
        r"""A whole number and a fraction of numbers behind it: "3\frac{1}{2}" is 3.5."""
        ahead = [self.peek(i) for i in range(7)]
        shape = [text if kind != "number" else "1" for kind, text in ahead]
        if whole[1].denominator != 1 or shape != [r"\frac", "{", "1", "}", "{", "1", "}"]:
            return None
        fraction = self.factor()
        return ("sum", whole, fraction)

    def signed_factor(self) -> Node:
        if self.takes("-"):
            return ("negative", self.signed_factor())
        self.takes("+")
        return self.factor()

    def starts_factor(self) -> bool:
        kind, text = self.peek()
        if kind in ("number", "letter", "name", "segment"):
            return True
        if kind == "sign":
            return text in ("(", "[", "{") or (text == "|" and not self.bars)
        opens = (r"\frac", r"\sqrt", r"\binom", r"\lfloor", r"\lceil", r"\langle", r"\mathbb", *_MARKED)
        return kind == "command" and text in opens

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("it is nested too deeply")
        node: Node = self.atom()
        raised = False
        while True:
            kind, text = self.peek()
            if text == "^":
                if raised:
                    raise Unreadable("a power of a power without brackets")
                self.at += 1
                node, raised = ("power", node, self.argument()), True
            elif text == "_":
                self.at += 1
                if node[0] == "number" and self.at >= 3 and self.tokens[self.at - 3][0] in ("letter", "segment"):
                    raise Unreadable("digits that are letters")
                node = _subscripted(node, self.raw_argument())
            elif text == "!" and kind == "sign":
                self.at += 1
                node = ("factorial2", node) if self.takes("!") else ("factorial", node)
            elif text == "'" and node[0] in ("symbol", "name"):
                self.at += 1
                node = ("symbol", node[1] + "'")
            elif text == "%":
                self.at += 1
            elif text == "°":
                self.at += 1
                if self.in_trig:
                    node = ("product", node, ("quotient", ("pi",), ("number", Fraction(180))))
            else:
                self.depth -= 1
                return node

    def argument(self) -> Node:
        """The argument of a command or a caret: a group, a command with its arguments, a number or a letter."""
        if self.peek()[1] == "{":
            return self.group()
        if self.takes("-"):
            return ("negative", self.argument())
        kind, text = self.peek()
        if kind == "number":
            self.at += 1
            return ("number", _number(text))
        return self.atom()

    def raw_argument(self) -> str:
        """A subscript, as text."""
        if not self.takes("{"):
            kind, text = self.next()
            if kind == "end":
                raise Unreadable("a subscript that is missing")
            return text
        start, depth = self.at, 1
        while depth:
            kind, text = self.next()
            if kind == "end":
                raise Unreadable("a subscript that does not end")
            depth += {"{": 1, "}": -1}.get(text, 0)
        return " ".join(text for _, text in self.tokens[start : self.at - 1])

    def group(self) -> Node:
        self.needs("{")
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.bars = bars
        self.needs("}")
        return node

    def atom(self) -> Node:
        kind, text = self.next()
        if kind == "number":
            return self.repeating(text) or ("number", _number(text))
        if kind == "letter":
            if self.is_applied(text):
                return ("applied", text, self.tuple_of(*self.next()))
            if [self.peek(i)[1] for i in range(6)] == ["^", "{", "-", "1", "}", "("] and text in "fgh":
                self.at += 5
                return ("applied", f"{text}^-1", self.tuple_of(*self.next()))
            return ("symbol", text)
        if kind == "segment":
            return ("symbol", text)
        if kind == "name":
            return self.named(text)
        if kind == "sign" and text == "|":
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.needs("|")
            return ("absolute", node)
        if text in ("(", "[", r"\{", r"\langle"):
            bars, self.bars = self.bars, 0
            node = self.tuple_of(kind, text)
            self.bars = bars
            return node
        if text == "{":
            self.at -= 1
            return self.group()
        if text == r"\frac":
            return ("quotient", self.digit_argument(), self.digit_argument())
        if text == r"\binom":
            return ("binomial", self.digit_argument(), self.digit_argument())
        if text == r"\sqrt":
            return self.root()
        if text in (r"\lfloor", r"\lceil"):
            node = self.sum()
            self.needs(_OPEN[text])
            return (text[1:], node)
        if text == r"\mathbb":
            return ("numbers", self.raw_argument())
        if kind == "word" and text.isupper():
            return ("symbol", text)
        if text in _MARKED:
            return ("symbol", f"{text} {self.raw_argument()}")
        if text == r"\begin":
            return self.matrix()
        raise Unreadable(f"{text!r}" if text else "it ends too early")

    def is_applied(self, name: str) -> bool:
        """Whether a letter is a function applied to brackets: f and g always, others to a single sign, "x(t)"."""
        if self.peek()[1] != "(":
            return False
        one = self.peek(1)[0] in ("number", "letter", "name") and self.peek(2)[1] == ")"
        return name in ("f", "g") or (one and self.peek(1)[1] not in _FUNCTIONS)

    def digit_argument(self) -> Node:
        r"""An argument of \frac and its like, which without braces is one digit of a number."""
        kind, text = self.peek()
        if kind == "number" and len(text) > 1 and text.isdigit():
            self.tokens[self.at : self.at + 1] = [("number", text[0]), ("number", text[1:])]
        return self.argument()

    def root(self) -> Node:
        degree: Node = ("number", Fraction(2))
        if self.takes("["):
            degree = self.sum()
            self.needs("]")
        return ("root", degree, self.digit_argument())

    def repeating(self, text: str) -> Node | None:
        r"""A decimal whose last digits repeat, "0.1\overline{6}"; None where no such digits follow `text`."""
        ahead = 1 if self.peek()[1] == "." and "." not in text else 0
        shape = [self.peek(ahead + i)[1] for i in range(4)]
        if (shape[0], shape[1], shape[3]) != (r"\overline", "{", "}") or not re.fullmatch("[0-9]{1,40}", shape[2]):
            return None
        if not ahead and "." not in text:
            return None
        self.at += ahead + 4
        places = len(text.partition(".")[2])
        repeated = Fraction(int(shape[2]), (10 ** len(shape[2]) - 1) * 10**places)
        return ("number", _number(text) + repeated)

    def named(self, name: str) -> Node:
        if name in _NAMES:
            return _NAMES[name]
        if name not in _FUNCTIONS and self.is_applied(name):
            return ("applied", name, self.tuple_of(*self.next()))
        if name not in _FUNCTIONS:
            return ("symbol", f"\\{name}")
        subscript = self.subscript() if self.peek()[1] == "_" else None
        power = None
        if self.takes("^"):
            power = self.argument()
        in_trig, self.in_trig = self.in_trig, name not in ("ln", "log", "lg", "exp", "max", "min", "gcd", "lcm")
        arguments: Node
        if self.peek()[1] in ("(", r"\{"):
            arguments = self.tuple_of(*self.next())
            arguments = arguments if arguments[0] in ("tuple", "set") else ("tuple", "(", ")", arguments)
            while self.takes("!"):
                arguments = ("tuple", "(", ")", ("factorial", arguments[-1]))
        else:
            arguments = ("tuple", "(", ")", self.juxtaposed())
        self.in_trig = in_trig
        node: Node = ("function", name, subscript, *(arguments[3:] if arguments[0] == "tuple" else arguments[1:]))
        if power is None:
            return node
        if power == ("negative", ("number", Fraction(1))):
            if name not in _INVERSES or subscript is not None:
                raise Unreadable("an inverse function")
            return ("function", _INVERSES[name], *node[2:])
        return ("power", node, power)

    def subscript(self) -> Node:
        self.needs("_")
        return self.digit_argument()

    def juxtaposed(self) -> Node:
        """The argument of a function without brackets: factors, up to an operator or the next function."""
        node = ("negative", self.factor()) if self.takes("-") else self.factor()
        while self.starts_factor() and self.peek()[1] not in _FUNCTIONS:
            node = ("product", node, self.factor())
        if self.peek()[1] == "/" and self.peek(1)[0] == "number":
            self.at += 1
            node = ("quotient", node, self.factor())
        return node

    def tuple_of(self, _: str, opener: str) -> Node:
        """What is in brackets, after the opening one: a group, tuple, interval or set."""
        if opener == r"\{" and self.takes(r"\}"):
            return ("set",)
        if opener == r"\{" and self.peek()[0] == "letter" and self.peek(1)[1] in ("|", ":"):
            self.at += 2  # {x | x > 2}
            members = self.item()
            self.needs(r"\}")
            return ("set", members)
        self._part_numbers()
        entries = [self.entry()]
        while self.takes(",", ";"):
            entries.append(self.entry())
        closer = self.next()[1]
        if closer not in _CLOSERS or (closer in ("}", r"\}")) != (opener == r"\{"):
            raise Unreadable(f"{opener!r} closed by {closer!r}")
        if opener == r"\{":
            return ("set", *entries)
        if len(entries) == 1:
            if (opener, closer) not in (("(", ")"), ("[", "]")):
                raise Unreadable("brackets that do not match")
            return entries[0]
        return ("tuple", opener.replace(r"\langle", "("), closer.replace(r"\rangle", ")"), *entries)

    def entry(self) -> Node:
        if words := self.words_alone():
            return words
        return self.side()

    def _part_numbers(self) -> None:
        """Split "1,234", alone in brackets, into two entries; in "(1,234, 5)" it stays a number."""
        kind, text = self.peek()
        if kind == "number" and "," in text and self.peek(1)[1] in _CLOSERS:
            parts = [("number", part) for part in text.split(",")]
            self.tokens[self.at : self.at + 1] = [t for part in parts for t in (part, ("sign", ","))][:-1]

    def matrix(self) -> Node:
        environment = self.raw_argument().replace(" ", "")
        if environment == "cases":
            return self.cases()
        if environment == "array":
            self.raw_argument()
        elif environment not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "vmatrix"):
            raise Unreadable(f"the environment {environment}")
        rows: list[list[Node]] = [[]]
        while not self.takes(r"\end"):
            if self.takes(r"\cr"):
                rows.append([])
            elif not self.takes("&"):
                rows[-1].append(self.sum())
        self.raw_argument()
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("a matrix whose rows differ")
        kind = "determinant" if environment == "vmatrix" else "matrix"
        return (kind, len(rows), len(rows[0]), *(entry for row in rows for entry in row))

    def cases(self) -> Node:
        """Relations that hold together, one on each line, as the set of "x = 1, y = 2"."""
        rows = [self.item()]
        while not self.takes(r"\end"):
            self.takes(",")
            if self.takes(r"\cr") and self.peek()[1] != r"\end":
                rows.append(self.item())
            elif self.peek()[1] != r"\end":
                raise Unreadable("a function by cases")
        self.raw_argument()
        return ("set", *rows)


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))


def _subscripted(node: Node, subscript: str) -> Node:
    """A symbol with a subscript is another symbol; of a whole number the subscript is the base, where it can be."""
    if node[0] == "symbol":
        return ("symbol", f"{node[1]}_{subscript}")
    if node[0] != "number":
        raise Unreadable("a subscript of an expression")
    if node[1].denominator != 1:
        return ("symbol", f"{node[1]}_{subscript}")
    digits, base = str(node[1].numerator), _BASES.get(subscript.strip(), subscript.replace(" ", ""))
    if base.isdigit() and 2 <= int(base) <= 36 and all(int(digit) < int(base) for digit in digits):
        return ("number", Fraction(int(digits, int(base))))
    return ("symbol", f"{digits}_{base}")
