r"""Whether two answers are the same mathematics: read by `expressions.py`, evaluated, never rounded.

Two expressions are equal if they have the same value at several points, where each letter has a number that depends on
its name: as exact fractions where the values are rational, else in 60, 120 and 240 digits. So there is no tolerance,
and equality is symmetric. Where numbers would become too large to compute the verdict is None, undecided.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from spare_jax.tasks.expressions import INFINITY, Node, Unreadable, read

Point = Mapping[str, Fraction]

_PRECISIONS = (60, 120, 240)  # digits
_MOST_BITS = 1 << 20  # of an exact fraction
_LARGEST = 10**12  # exponents, and logarithms of what is computed in floating point
_MOST_ITEMS = 40
_STRUCTURES = frozenset(("tuple", "matrix", "ratio", "text", "numbers", "set", "union"))
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


class TooLarge(ArithmeticError):
    """The value has more digits than are computed here: no verdict."""


class Undefined(ArithmeticError):
    """The expression has no value at this point."""


def same_answer(first: str, second: str) -> bool | None:
    """Whether two answers are equal; None where their values are too large or too close to tell.

    Raises:
      Unreadable: one of the two holds something that `expressions.read` does not know.
    """
    return _same_lists(_items(read(first)), _items(read(second)))


# Lists of items


def _items(items: Sequence[Node]) -> list[Node]:
    r"""An answer as a list without order: sets and unions become their members, "\pm" two items."""
    flat: list[Node] = []
    for item in items:
        if item[0] in ("set", "union"):
            flat += _items(item[1:])
        elif item[0] == "alternatives":
            distinct: list[Node] = []
            for each in _items(item[1:]):
                distinct += [] if any(_same_item(each, other) for other in distinct) else [each]
            flat += distinct
        elif item == ("numbers", "R"):
            flat.append(("tuple", "(", ")", ("negative", INFINITY), INFINITY))
        elif item[:2] == ("difference", ("numbers", "R")) and item[2][0] == "set":
            flat += _gaps(item[2][1:])
        elif _holds(item, "plus_minus", "minus_plus"):
            flat += [_signed(item, 1), _signed(item, -1)]
        elif item[0] == "relation" and item[1] == ("!=",) and item[2][0][0] == "symbol":
            flat += [("relation", (sign,), item[2]) for sign in "<>"]
        else:
            flat.append(item)
        if len(flat) > _MOST_ITEMS:
            raise Unreadable("a long list")
    return flat


def _gaps(points: Sequence[Node]) -> list[Node]:
    """All real numbers but `points`, as the open intervals between them."""
    if any(map(symbols, points)):
        raise Unreadable("all numbers but letters")
    values = [_float(evaluate(point, {})) for point in points]
    if any(isinstance(value, mp.mpc) for value in values):
        raise Unreadable("no real number")
    ends = [("negative", INFINITY), *(points[i] for i in sorted(range(len(values)), key=values.__getitem__)), INFINITY]
    return [("tuple", "(", ")", low, high) for low, high in itertools.pairwise(ends)]


def _holds(node: Any, *kinds: str) -> bool:
    if not isinstance(node, tuple):
        return False
    return (bool(node) and node[0] in kinds) or any(_holds(part, *kinds) for part in node)


def _signed(node: Any, sign: int) -> Any:
    if not isinstance(node, tuple):
        return node
    if node[0] in ("plus_minus", "minus_plus"):
        adds = (node[0] == "plus_minus") == (sign > 0)
        return ("sum" if adds else "difference", _signed(node[1], sign), _signed(node[2], sign))
    return tuple(_signed(part, sign) for part in node)


def _same_lists(first: list[Node], second: list[Node]) -> bool | None:
    """Whether the items of two lists can be paired so that each equals its partner."""
    if len(first) != len(second):
        for one, other in ((first, second), (second, first)):
            value = _unwrapped(one[0]) if len(one) == 1 and one[0][0] == "relation" else None
            if value is not None and value[0] in ("set", "union", "difference"):
                return _same_lists(_items([value]), other)
        return False
    left, undecided = list(second), False
    for item in first:
        verdicts = []
        for other in left:
            verdicts.append(_same_item(item, other))
            if verdicts[-1]:
                break
        if verdicts and verdicts[-1]:
            left.pop(len(verdicts) - 1)
        elif None in verdicts:
            undecided = True
            left.pop(verdicts.index(None))
        else:
            return False
    return None if undecided else True


def _same_item(first: Node, second: Node) -> bool | None:
    if first[0] == "relation" and second[0] == "relation":
        return _same_relation(first, second)
    if first[0] == "relation" or second[0] == "relation":
        relation, other = (first, second) if first[0] == "relation" else (second, first)
        value = (
            _interval(relation) if other[0] == "tuple" and relation[1][0] not in ("=", "in") else _unwrapped(relation)
        )
        return False if value is None else _same_lists(_items([value]), _items([other]))
    if first[0] in _STRUCTURES or second[0] in _STRUCTURES:
        if first[0] != second[0] or len(first) != len(second):
            return False
        if first[0] in ("set", "union"):
            return _same_lists(_items([first]), _items([second]))
        pairs = list(zip(first[1:], second[1:], strict=True))
        if any(a != b for a, b in pairs if not isinstance(a, tuple) or not isinstance(b, tuple)):
            return False
        return _all(_same_item(a, b) for a, b in pairs if isinstance(a, tuple))
    return identical(first, second)


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    overall: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        overall = None if verdict is None else overall
    return overall


# Relations


def _unwrapped(relation: Node) -> Node | None:
    """The value in a relation that gives something a value: 5 of "x = 5", S of "x in S", and 18 of "18 = 3 * 6"."""
    signs, sides = relation[1:]
    if signs == ("in",):
        return sides[1]
    if set(signs) != {"="}:
        return None
    if not any(map(symbols, sides)):
        return sides[-1] if _all(identical(sides[0], side) for side in sides[1:]) else None
    for name, value in ((sides[0], sides[-1]), (sides[-1], sides[0])):
        if _is_name(name) and (name[0] == "applied" or not symbols(name) & symbols(value)):
            return value
    return None


def _is_name(node: Node) -> bool:
    """Whether an equation may give this a value: a letter, f(x), or a tuple of letters."""
    if node[0] == "applied":
        return True
    if node[0] == "tuple":
        return all(_is_name(part) for part in node[3:])
    if node[0] == "absolute":  # the length of a segment
        return node[1][0] == "symbol" and len(node[1][1]) > 1
    return node[0] == "symbol" and node[1] not in ("e", "i")


def _interval(relation: Node) -> Node | None:
    """The interval that inequalities of one letter describe."""
    signs, sides = relation[1:]
    if "=" in signs or "!=" in signs or "in" in signs:
        return None
    if signs[0][0] == ">":
        signs, sides = tuple(_FLIPPED[sign] for sign in reversed(signs)), tuple(reversed(sides))
    if any(sign[0] != "<" for sign in signs):
        return None
    names = [i for i, side in enumerate(sides) if _is_name(side)]
    if len(names) != 1 or any(symbols(side) for i, side in enumerate(sides) if i != names[0]) or len(sides) > 3:
        return None
    at = names[0]
    if len(sides) == 3 and at != 1:
        return None
    low = sides[at - 1] if at else ("negative", INFINITY)
    high = sides[at + 1] if at + 1 < len(sides) else INFINITY
    opener = "(" if not at or signs[at - 1] == "<" else "["
    closer = ")" if at + 1 >= len(sides) or signs[at] == "<" else "]"
    return ("tuple", opener, closer, low, high)


def _same_relation(first: Node, second: Node) -> bool | None:
    signs, other_signs = first[1], second[1]
    if signs == ("in",) or other_signs == ("in",):
        if signs != other_signs:
            relation, other = (first, second) if signs == ("in",) else (second, first)
            interval = _interval(other)
            if interval is None or symbols(relation[2][0]) != symbols(("relation", *other[2])):
                return False
            return _same_lists(_items([relation[2][1]]), _items([interval]))
        return _all((_same_item(first[2][0], second[2][0]), _same_lists(_items([first[2][1]]), _items([second[2][1]]))))
    if set(signs) == set(other_signs) == {"="}:
        if not symbols(first) | symbols(second):
            orders = [_sides_equal(first[2], sides) for sides in (second[2], second[2][::-1])]
            return True if True in orders else None if None in orders else False
        left, right = (_ends(relation) for relation in (first, second))
        if left is None or right is None:
            return _sides_equal(first[2], second[2])
        if any(side[0] in _STRUCTURES for side in (*left, *right)):
            return _sides_equal(left, right)
        return _proportional(left, right, positive=False)
    intervals = _interval(first), _interval(second)
    if intervals[0] and intervals[1]:
        return symbols(first) == symbols(second) and _same_item(intervals[0], intervals[1])
    if first[1][0][0] == ">":
        first = _turned(first)
    if second[1][0][0] == ">":
        second = _turned(second)
    if first[1] != second[1]:
        return False
    if len(first[1]) == 1:
        return _proportional(first[2], second[2], positive=first[1] != ("!=",))
    return _sides_equal(first[2], second[2])


def _turned(relation: Node) -> Node:
    return ("relation", tuple(_FLIPPED[sign] for sign in reversed(relation[1])), tuple(reversed(relation[2])))


def _ends(relation: Node) -> tuple[Node, Node] | None:
    """The two sides of an equation; the letter and the last side of a chain "x = 3 * 6 = 18"; else None."""
    sides = relation[2]
    return (sides[0], sides[-1]) if len(sides) == 2 or _is_name(sides[0]) else None


def _sides_equal(first: Sequence[Node], second: Sequence[Node]) -> bool | None:
    if len(first) != len(second):
        return False
    return _all(_same_item(a, b) for a, b in zip(first, second, strict=True))


def _proportional(first: Sequence[Node], second: Sequence[Node], positive: bool) -> bool | None:
    """Whether the difference of two sides is a constant times that of the other two, positive if `positive`: then both
    relations state the same."""
    one, other = (("difference", sides[0], sides[1]) for sides in (first, second))
    names = symbols(one) | symbols(other)
    start, *others = _points(names)
    try:
        if positive:
            with mp.workdps(_PRECISIONS[0]):
                ratio = _quotient(evaluate(one, start), evaluate(other, start))
                if isinstance(ratio, mp.mpc) or ratio <= 0:
                    return False
        return _all(
            _agree(
                lambda point=point: _quotient(evaluate(one, point), evaluate(one, start)),
                lambda point=point: _quotient(evaluate(other, point), evaluate(other, start)),
            )
            for point in others
        )
    except TooLarge:
        return None
    except Undefined:
        return False


# Values


def symbols(node: Any) -> frozenset[str]:
    """The letters of an expression that are variables: all but e and i."""
    if not isinstance(node, tuple):
        return frozenset()
    if node[:1] == ("symbol",):
        return frozenset(() if node[1] in ("e", "i") else (node[1],))
    return frozenset().union(*map(symbols, node))


def identical(first: Node, second: Node) -> bool | None:
    """Whether two expressions have the same value at every point where they have one, and there is such a point."""
    names, seen = symbols(first) | symbols(second), False
    steps = _holds((first, second), "lfloor", "lceil")
    for point in _points(names, far=steps):
        try:
            verdict = _agree(lambda at=point: evaluate(first, at), lambda at=point: evaluate(second, at))
        except TooLarge:
            return None
        except Undefined:
            if _defined(first, point) or _defined(second, point):
                return False
            continue
        if not verdict:
            return verdict
        seen = True
        if not names:
            break
    return seen


def _defined(node: Node, point: Point) -> bool:
    try:
        evaluate(node, point)
    except ArithmeticError:
        return False
    return True


def _points(names: frozenset[str], far: bool = False) -> list[Point]:
    """Points that depend only on the names: two with positive numbers, two with either sign, and six `far` from zero,
    for functions with steps."""
    near: list[Point] = [{name: _stand_in(f"{k}/{name}", k >= 2) for name in names} for k in range(4)]
    return near + [{name: 101 * _stand_in(f"{k}/{name}", k >= 8) for name in names} for k in range(4, 10) if far]


def _stand_in(name: str, signed: bool) -> Fraction:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    value = Fraction(300 + int.from_bytes(digest[:4]) % 2700, 1009)
    return -value if signed and digest[7] % 2 else value


def _agree(first: Callable[[], Any], second: Callable[[], Any]) -> bool | None:
    """Whether two computations give the same number: as the digits grow the difference of equal numbers vanishes, and
    that of others stays. None where neither is seen."""
    before: tuple[Any, Any] | None = None
    for digits in _PRECISIONS:
        with mp.workdps(digits):
            x, y = first(), second()
            if isinstance(x, Fraction) and isinstance(y, Fraction):
                return x == y
            x, y = _float(x), _float(y)
            if mp.isinf(x) or mp.isinf(y):
                return bool(x == y)
            gap, size = abs(x - y), max(abs(x), abs(y))
            if before is not None:
                vanished = gap <= size * mp.mpf(10) ** (-digits // 2) or size <= before[1] * mp.mpf(10) ** (
                    -digits // 4
                )
                if vanished and (before[0] <= before[1] * mp.mpf(10) ** (-digits // 4) or size <= before[1] * 1e-9):
                    return True
                if not vanished and abs(gap - before[0]) <= gap * mp.mpf(10) ** -9:
                    return False
            before = gap, size
    return None


def evaluate(node: Node, point: Point) -> Any:
    """The value of an expression: a Fraction where it is rational, else a number of mpmath in its current precision.

    Raises:
      TooLarge, Undefined: it has no value, or none that can be computed.
      Unreadable: it is a tuple, a set or something else that is no number.
    """
    if node[0] not in _RULES:
        raise Unreadable(f"a {node[0]} where a number is wanted")
    try:
        value = _RULES[node[0]](point, *node[1:])
    except Unreadable:
        raise
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise Undefined(str(error)) from None
    if isinstance(value, Fraction):
        large = max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * _MOST_BITS
        return _float(value) if large else value
    if mp.isnan(value):
        raise Undefined("no number")
    return value


def _float(value: Any) -> Any:
    if isinstance(value, Fraction):
        return mp.mpf(value.numerator) / value.denominator
    return value.real if isinstance(value, mp.mpc) and value.imag == 0 else value


def _sum(x: Any, y: Any) -> Any:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x + y
    x, y = _float(x), _float(y)
    if x and y and not (mp.isinf(x) or mp.isinf(y)):
        high, low = sorted((int(mp.mag(x)), int(mp.mag(y))), reverse=True)
        if high > 700 and high - low > mp.prec - 40:  # the smaller one would be lost
            raise TooLarge("a sum of a very large number and a small one")
    return x + y


def _product(x: Any, y: Any) -> Any:
    return x * y if isinstance(x, Fraction) and isinstance(y, Fraction) else _float(x) * _float(y)


def _quotient(x: Any, y: Any) -> Any:
    if not y:
        raise Undefined("division by zero")
    return x / y if isinstance(x, Fraction) and isinstance(y, Fraction) else _float(x) / _float(y)


def _power(x: Any, y: Any) -> Any:
    if not x:
        if isinstance(y, Fraction):
            return x**y if y >= 0 else _quotient(Fraction(1), x)
        raise Undefined("a power of zero")
    if isinstance(y, Fraction) and y.denominator == 1:
        n = y.numerator
        if isinstance(x, Fraction):
            if abs(x) == 1:
                return x if n % 2 else Fraction(1)
            if max(x.numerator.bit_length(), x.denominator.bit_length()) * abs(n) <= _MOST_BITS:
                return x**n
        _within(abs(n), _LARGEST)
        _within(abs(n) * abs(int(mp.mag(_float(x)))), _LARGEST * 1000)
        return _float(x) ** n
    base = _float(x)
    if isinstance(y, Fraction) and y.denominator % 2 and isinstance(base, mp.mpf) and base < 0:
        root = _power(-x, y)  # an odd root of a negative number is negative
        return -root if y.numerator % 2 else root
    exponent = _float(y)
    _within(abs(exponent) * abs(mp.log(base)), _LARGEST)
    return mp.power(base, exponent)


def _within(size: Any, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"more than {limit}")


def _factorial(x: Any) -> Any:
    if isinstance(x, Fraction) and x.denominator == 1:
        if x < 0:
            raise Undefined("the factorial of a negative number")
        if x <= 3000:
            return Fraction(math.factorial(int(x)))
    _within(abs(_float(x)), 10**9)
    return mp.factorial(_float(x))


def _double_factorial(x: Any) -> Any:
    if not isinstance(x, Fraction) or x.denominator != 1 or not 0 <= x <= 3000:
        raise Unreadable("a double factorial")
    return Fraction(math.prod(range(int(x), 0, -2)))


def _root(degree: Any, x: Any) -> Any:
    if not isinstance(degree, Fraction) or not degree:
        return _power(x, _quotient(Fraction(1), degree))
    if isinstance(x, Fraction) and degree.denominator == 1 and 0 < degree < 100 and x >= 0:
        exact = [_whole_root(part, int(degree)) for part in (x.numerator, x.denominator)]
        if None not in exact:
            return Fraction(exact[0] or 0, exact[1] or 1)
    return _power(x, 1 / degree)


def _whole_root(value: int, degree: int) -> int | None:
    if value.bit_length() > 4096:
        return None
    root = math.isqrt(value) if degree == 2 else int(mp.nint(mp.root(value, degree)))
    return root if root**degree == value else None


def _binomial(n: Any, k: Any) -> Any:
    if (
        isinstance(n, Fraction)
        and isinstance(k, Fraction)
        and n.denominator == k.denominator == 1
        and 0 <= k <= n <= 3000
    ):
        return Fraction(math.comb(int(n), int(k)))
    _within(max(abs(_float(n)), abs(_float(k))), 10**9)
    return mp.binomial(_float(n), _float(k))


def _rounded(floor: bool, x: Any) -> Fraction:
    if isinstance(x, Fraction):
        return Fraction(math.floor(x) if floor else math.ceil(x))
    x = _float(x)
    if isinstance(x, mp.mpc) or mp.isinf(x):
        raise Undefined("no real number")
    _within(abs(int(mp.mag(x) if x else 0)), mp.prec - 30)
    if abs(x - mp.nint(x)) < mp.mpf(10) ** (20 - mp.dps):
        return Fraction(int(mp.nint(x)))
    return Fraction(int(mp.floor(x) if floor else mp.ceil(x)))


def _function(point: Point, name: str, subscript: Node | None, *arguments: Node) -> Any:
    values = [evaluate(argument, point) for argument in arguments]
    if name in ("max", "min", "gcd", "lcm"):
        if name in ("gcd", "lcm"):
            if any(not isinstance(v, Fraction) or v.denominator != 1 for v in values):
                raise Unreadable(f"{name} of what is not whole")
            return Fraction((math.gcd if name == "gcd" else math.lcm)(*map(int, values)))
        if any(isinstance(_float(v), mp.mpc) for v in values):
            raise Undefined("no order")
        return (max if name == "max" else min)(values, key=_float)
    if len(values) != 1 or name == "det":
        raise Unreadable(f"{name} of several")
    x = _float(values[0])
    if x and not mp.isinf(x):
        _within(abs(int(mp.mag(x))) if name not in ("ln", "log", "lg") else 0, 10_000)
    if name in ("ln", "log", "lg"):
        if not x:
            raise Undefined("the logarithm of zero")
        if subscript is not None:
            return mp.log(x) / _float(mp.log(_float(evaluate(subscript, point))))
        # Without a base a logarithm may have any: it is a multiple of the natural one.
        return mp.log(x) / {"ln": 1, "lg": mp.log(10), "log": _float(_stand_in("log", False))}[name]
    if subscript is not None:
        raise Unreadable(f"{name} with a subscript")
    if name == "exp":
        _within(abs(x), _LARGEST)
    if name in _INVERTED:
        return 1 / _INVERTED[name](x)
    return getattr(mp, name.replace("arc", "a"))(x)


_INVERTED = {"sec": mp.cos, "csc": mp.sin, "cot": mp.tan}


def _applied(point: Point, name: str, argument: Node) -> Fraction:
    """The value of a function that is not known: a number that depends on its name and its arguments."""
    arguments = argument[3:] if argument[0] == "tuple" else (argument,)
    values = [mp.nstr(_float(evaluate(each, point)), 25) for each in arguments]
    return _stand_in(f"{name}/{values}", True)


def _determinant(point: Point, rows: int, columns: int, *entries: Node) -> Any:
    if rows != columns or rows > 4:
        raise Unreadable("a large determinant")
    values, total = [evaluate(entry, point) for entry in entries], Fraction(0)
    for order in itertools.permutations(range(rows)):
        odd = sum(a > b for a, b in itertools.combinations(order, 2)) % 2
        term: Any = Fraction(-1 if odd else 1)
        for row, column in enumerate(order):
            term = _product(term, values[row * columns + column])
        total = _sum(total, term)
    return total


def _symbol(point: Point, name: str) -> Any:
    return {"e": +mp.e, "i": mp.mpc(0, 1)}[name] if name in ("e", "i") else point[name]


_RULES: dict[str, Callable[..., Any]] = {
    "number": lambda at, value: value,
    "symbol": _symbol,
    "pi": lambda at: +mp.pi,
    "infinity": lambda at: mp.inf,
    "sum": lambda at, x, y: _sum(evaluate(x, at), evaluate(y, at)),
    "difference": lambda at, x, y: _sum(evaluate(x, at), -evaluate(y, at)),
    "negative": lambda at, x: -evaluate(x, at),
    "product": lambda at, x, y: _product(evaluate(x, at), evaluate(y, at)),
    "quotient": lambda at, x, y: _quotient(evaluate(x, at), evaluate(y, at)),
    "power": lambda at, x, y: _power(evaluate(x, at), evaluate(y, at)),
    "root": lambda at, degree, x: _root(evaluate(degree, at), evaluate(x, at)),
    "factorial": lambda at, x: _factorial(evaluate(x, at)),
    "factorial2": lambda at, x: _double_factorial(evaluate(x, at)),
    "absolute": lambda at, x: abs(evaluate(x, at)),
    "binomial": lambda at, n, k: _binomial(evaluate(n, at), evaluate(k, at)),
    "lfloor": lambda at, x: _rounded(True, evaluate(x, at)),
    "lceil": lambda at, x: _rounded(False, evaluate(x, at)),
    "function": _function,
    "applied": _applied,
    "determinant": _determinant,
}
