"""Which prompts lie in which pages: a tree of pieces, each computed once and held once, while there is room.

A request's prompt is a chain of pieces: what its `Prefix` declares, and its own ids as the last one. Chains with equal
beginnings share the nodes of these. A node is held while anything uses it (a request, or a node behind it) and
forgotten after that only when its pages are wanted, the longest unused first.
"""

import collections
import dataclasses

from spare_jax.models.cache import KEY_BLOCK, blocks_of

Pieces = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(eq=False)
class Node:
    """A piece of a prompt in its pages, and how it is reached."""

    parent: "Node | None"  # None is the root's alone
    ids: tuple[int, ...]
    start: int  # tokens before it
    own: tuple[int, ...] = ()  # its pages; the first begins with a copy where `start` is inside a page
    computed: bool = False
    users: int = 0  # requests that hold it, and children
    children: dict[tuple[int, ...], "Node"] = dataclasses.field(default_factory=dict)

    @property
    def end(self) -> int:
        """Tokens up to its end."""
        return self.start + len(self.ids)

    def pages(self) -> tuple[int, ...]:
        """The pages of the whole chain, from position 0."""
        before = self.parent.pages()[: self.start // KEY_BLOCK] if self.parent else ()
        return before + self.own


class PrefixTree:
    """Hands out pages to pieces and takes them back. `new` collects the nodes that are still to be computed, parents
    first; whoever computes them empties it."""

    def __init__(self, pages: int):
        self.new: list[Node] = []
        self._pages = pages
        self._free = list(range(pages - 1, -1, -1))
        self._root = Node(None, (), 0, computed=True, users=1)
        self._idle: collections.OrderedDict[Node, None] = collections.OrderedDict()  # nobody uses them; oldest first

    def fits(self, pieces: Pieces) -> bool:
        """Whether the pages could hold this chain if nothing else were there."""
        return _pages_wanted(0, pieces) <= self._pages

    def hold(self, pieces: Pieces) -> Node | None:
        """The node at the end of this chain, which the caller now uses; None where there is no room for it now."""
        known, node = 0, self._root
        while known < len(pieces) and (child := node.children.get(pieces[known])):
            known, node = known + 1, child
        self._use(node)
        if not self._make_room(_pages_wanted(node.end, pieces[known:])):
            self.release(node)
            return None
        for ids in pieces[known:]:
            child = Node(node, ids, node.end)
            child.own = tuple(self._free.pop() for _ in range(_pages_wanted(node.end, (ids,))))
            node.children[ids] = child  # the child's use of its parent takes over the caller's
            child.users = 1
            self.new.append(child)
            node = child
        return node

    def release(self, node: Node) -> None:
        """End a use of `node`."""
        node.users -= 1
        if not node.users:
            self._idle[node] = None

    def _use(self, node: Node) -> None:
        node.users += 1
        self._idle.pop(node, None)

    def _make_room(self, wanted: int) -> bool:
        """Forget what nobody uses until so many pages are free."""
        while len(self._free) < wanted and self._idle:
            node, _ = self._idle.popitem(last=False)
            self._free += node.own
            assert node.parent is not None  # the root is never idle
            del node.parent.children[node.ids]
            self.release(node.parent)
        return len(self._free) >= wanted


def _pages_wanted(start: int, pieces: Pieces) -> int:
    """Pages that pieces want of their own behind `start` tokens: each from the page in which it begins."""
    wanted = 0
    for ids in pieces:
        wanted += blocks_of(start + len(ids)) - start // KEY_BLOCK
        start += len(ids)
    return wanted
