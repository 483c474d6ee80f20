"""The collectives of a compiled function: what the devices of a mesh send each other, read from its text."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")


class ArrayType(NamedTuple):
    """Type and shape of an array as it lies on one device, such as bf16[4096,14336]."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def bytes(self) -> int:
        """The first number in a type's name is its bits (bf16, u4, f8e4m3fn); a pred is a byte."""
        bits = re.search(r"\d+", self.dtype)
        return math.ceil(math.prod(self.shape) * (int(bits[0]) if bits else 8) / 8)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction: its kind and the arrays of its result."""

    kind: str
    arrays: tuple[ArrayType, ...]

    @property
    def bytes(self) -> int:
        """Of the result, on one device."""
        return sum(array.bytes for array in self.arrays)

    @property
    def largest(self) -> int:
        """Bytes of the largest array of the result."""
        return max(array.bytes for array in self.arrays)

    def largest_of_all_rows(self, rows: int, length: int) -> int:
        """Bytes of the largest array that can hold all rows of a batch: one with a dimension of their number, or of
        the number of their tokens. 0 where there is none."""
        wanted = {rows, rows * length}
        return max((array.bytes for array in self.arrays if wanted & set(array.shape)), default=0)


def collectives_of(text: str) -> list[Collective]:
    """The collectives in a compiled function's text (`compiled.as_text()`).

    A collective in a loop is listed once. So is one that the compiler cut into start, middle and end, whose parts have
    one channel.
    """
    collectives, channels = [], set()
    for line in text.splitlines():
        if not (match := _COLLECTIVE.search(line)):
            continue
        result, kind, start = match.groups()
        if channel := _CHANNEL.search(line):
            if (kind, channel[1]) in channels:
                continue
            channels.add((kind, channel[1]))
        arrays = [ArrayType(dtype, _dimensions(shape)) for dtype, shape in _ARRAY.findall(result)]
        # The type of an all-reduce-start is its result; that of the others is operands, as many results, and flags.
        if start and kind != "all-reduce":
            arrays = [array for array in arrays if array.shape]
            arrays = arrays[len(arrays) // 2 :]
        collectives.append(Collective(kind, tuple(arrays)))
    return collectives


def table(collectives: Sequence[Collective], least: int = 0) -> list[dict]:
    """Rows of kind, arrays, count and bytes: equal collectives together, the largest first, without those whose results
    have fewer than `least` bytes."""
    return [
        {"kind": one.kind, "arrays": list(map(str, one.arrays)), "count": collectives.count(one), "bytes": one.bytes}
        for one in sorted(dict.fromkeys(collectives), key=lambda one: -one.bytes)
        if one.bytes >= least
    ]


def _dimensions(shape: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, shape.split(","))))
