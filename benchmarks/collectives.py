"""What the devices of a mesh send each other, read off the text of a compiled function."""

import dataclasses
import math
import re
from collections.abc import Sequence

WIDTHS = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}
KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
_COLLECTIVE = re.compile(rf"= (.*?) ({KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction: its kind and the arrays of its result, (type, shape) each, as they lie on one device."""

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def bytes(self) -> int:
        """Of the result, on one device."""
        return sum(map(_bytes, self.arrays))

    @property
    def largest(self) -> int:
        """Bytes of the largest array of the result."""
        return max(map(_bytes, self.arrays))

    def of_all_rows(self, rows: int, length: int) -> bool:
        """Whether an array has all rows of a batch in its shape: a dimension of each size, or one of their product."""
        return any({rows, length} <= set(shape) or rows * length in shape for _, shape in self.arrays)


def collectives_of(text: str) -> list[Collective]:
    """The collectives of a compiled function's text (`compiled.as_text()`). What stands in a loop is there once; one
    that the compiler cut into start, middle and end has one channel and is there once, too."""
    found, channels = [], set()
    for line in text.splitlines():
        if not (match := _COLLECTIVE.search(line)):
            continue
        if channel := _CHANNEL.search(line):
            if (match[2], channel[1]) in channels:
                continue
            channels.add((match[2], channel[1]))
        arrays = [(kind, tuple(map(int, filter(None, shape.split(","))))) for kind, shape in _ARRAY.findall(match[1])]
        if match[3]:  # the type of a start names the operand, the result and flags
            arrays = [max(arrays, key=_bytes)]
        found.append(Collective(match[2], tuple(arrays)))
    return found


def _bytes(array: tuple[str, tuple[int, ...]]) -> int:
    return math.ceil(WIDTHS.get(array[0], 4) * math.prod(array[1]))


def table(found: Sequence[Collective], least: int = 0) -> list[dict]:
    """Those of a kind and a result together, the largest first, and how many there are; without results of fewer than
    `least` bytes."""
    return [
        {
            "kind": one.kind,
            "arrays": [f"{kind}[{','.join(map(str, shape))}]" for kind, shape in one.arrays],
            "count": found.count(one),
            "bytes": one.bytes,
        }
        for one in sorted(dict.fromkeys(found), key=lambda one: -one.bytes)
        if one.bytes >= least
    ]
