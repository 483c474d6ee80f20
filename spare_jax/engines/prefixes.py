"""A prefix cache: a tree of the pieces of prompts, with the pages in which each lies.

A prompt is a sequence of pieces: the ids of each `Prefix` that its request declares, and the request's own ids as the
last piece. Prompts that begin with the same pieces share the nodes of these, so each piece is computed and stored once
(as in SGLang's RadixAttention, Zheng et al. 2024, but with boundaries that requests declare). A node is in use while a
request or a child node refers to it. One that is not in use stays until its pages are needed; the least recently used
goes first.
"""

import collections
import dataclasses

from spare_jax.models.cache import KEY_BLOCK, blocks_of

Pieces = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(eq=False)
class Node:
    """A piece of a prompt, behind the pieces of its ancestors."""

    parent: "Node | None"  # None for the root alone
    ids: tuple[int, ...]
    start: int  # tokens of its ancestors
    own_pages: tuple[int, ...] = ()  # the first begins with a copy of the parent's last where `start` is inside a page
    computed: bool = False
    users: int = 0  # requests and children that refer to it
    children: dict[tuple[int, ...], "Node"] = dataclasses.field(default_factory=dict)

    @property
    def end(self) -> int:
        """Tokens of its ancestors and its own."""
        return self.start + len(self.ids)

    def pages(self) -> tuple[int, ...]:
        """The pages of the prompt that ends with this piece, from position 0 on."""
        before = self.parent.pages()[: self.start // KEY_BLOCK] if self.parent else ()
        return before + self.own_pages


class PrefixTree:
    """Assigns pages to pieces and frees them. `new` lists the nodes that have pages and are still to be computed,
    parents first; whoever computes them empties it."""

    def __init__(self, pages: int):
        self.new: list[Node] = []
        self._pages = pages
        self._free = list(range(pages - 1, -1, -1))
        self._root = Node(None, (), 0, computed=True, users=1)
        self._unused: collections.OrderedDict[Node, None] = collections.OrderedDict()  # least recently used first

    def fits(self, pieces: Pieces) -> bool:
        """Whether a prompt of these pieces fits when nothing else is in use."""
        return _pages_needed(0, pieces) <= self._pages

    def acquire(self, pieces: Pieces) -> Node | None:
        """The node at the end of this prompt, in use until `release`; None where there are not enough free pages
        now."""
        known, node = 0, self._root
        while known < len(pieces) and (child := node.children.get(pieces[known])):
            known, node = known + 1, child
        self._use(node)
        if not self._make_room(_pages_needed(node.end, pieces[known:])):
            self.release(node)
            return None
        for ids in pieces[known:]:
            child = Node(node, ids, node.end)
            child.own_pages = tuple(self._free.pop() for _ in range(_pages_needed(node.end, (ids,))))
            node.children[ids] = child  # the child takes over the caller's use of its parent
            child.users = 1
            self.new.append(child)
            node = child
        return node

    def release(self, node: Node) -> None:
        """End one use of `node`."""
        node.users -= 1
        if not node.users:
            self._unused[node] = None

    def _use(self, node: Node) -> None:
        node.users += 1
        self._unused.pop(node, None)

    def _make_room(self, needed: int) -> bool:
        """Evict nodes that are not in use until `needed` pages are free; whether they are."""
        while len(self._free) < needed and self._unused:
            node, _ = self._unused.popitem(last=False)
            self._free += node.own_pages
            assert node.parent is not None  # the root is always in use
            del node.parent.children[node.ids]
            self.release(node.parent)
        return len(self._free) >= needed


def _pages_needed(start: int, pieces: Pieces) -> int:
    """Pages that these pieces need of their own behind `start` tokens: each from the page on in which it begins."""
    needed = 0
    for ids in pieces:
        needed += blocks_of(start + len(ids)) - start // KEY_BLOCK
        start += len(ids)
    return needed
