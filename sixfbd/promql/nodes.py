"""The syntax tree of a compiled query: immutable, hashable nodes, parentheses gone, durations in milliseconds."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from sixfbd.window.snapshot import Matcher

Kind: TypeAlias = Literal["scalar", "vector", "matrix", "string"]
Cardinality: TypeAlias = Literal["one-to-one", "many-to-one", "one-to-many", "many-to-many"]


class Number(Struct, frozen=True):
    value: float


class Text(Struct, frozen=True):
    value: str


class Selector(Struct, frozen=True):
    """Series by matchers; with `range_ms` a range vector. A positive `offset_ms` looks back."""

    matchers: tuple[Matcher, ...]
    range_ms: int = 0
    offset_ms: int = 0


class Call(Struct, frozen=True):
    name: str
    args: tuple["Node", ...]


class Aggregate(Struct, frozen=True):
    """`op by (labels) (operand)`; neither `by` nor `without` is `by ()`."""

    op: str
    operand: "Node"
    param: "Node | None"
    labels: tuple[str, ...]
    without: bool


class Negate(Struct, frozen=True):
    operand: "Node"


class Matching(Struct, frozen=True):
    """How the two sides of a binary operator find each other; `include` are the labels of group_left/group_right."""

    on: bool = False
    labels: tuple[str, ...] = ()
    card: Cardinality = "one-to-one"
    include: tuple[str, ...] = ()


class Binary(Struct, frozen=True):
    op: str
    left: "Node"
    right: "Node"
    matching: Matching
    return_bool: bool


Node: TypeAlias = Number | Text | Selector | Call | Aggregate | Negate | Binary


def children(node: Node) -> tuple[Node, ...]:
    """Return the direct operands of a node, in the order of the text."""
    match node:
        case Call():
            return node.args
        case Aggregate():
            return (node.operand,) if node.param is None else (node.param, node.operand)
        case Negate():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, parents first, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)
