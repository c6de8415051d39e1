"""The mutants of a module: mutmut makes them, and this says which are left out, and why.

mutmut's own command tries a mutant through a wrapper around each function, which shows in tracebacks (the engine looks
into those), and leaves out what is not in a function: half of this library's tables. So only its operators are used
here, `trying` runs the tests.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from mutmut.mutation.file_mutation import Mutation, create_mutations

SOURCE = Path(__file__).parents[2] / "src" / "dotmac_workflows"

_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|BEGIN|COMMIT|ROLLBACK|WHERE|AND|SET|,|ORDER|LIMIT)\b")


class Mutant(NamedTuple):
    """One change to one module."""

    module: str
    """The path below the package, with slashes."""
    number: int
    """Which of the module's mutants it is, as mutmut makes them."""
    function: str
    """The qualified name of the outermost function that is changed; empty at the level of a module or class."""
    left_out: str
    """Why it is not tried; empty: it is."""
    start: int
    """Where the text begins that it replaces."""
    end: int
    text: str
    """What is there instead."""

    @property
    def source(self) -> str:
        """The whole text of the module."""
        old = original(self.module)
        return old[: self.start] + self.text + old[self.end :]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is in the list of survivors."""
        return self.module, self.function, *self.change[1:]

    @property
    def change(self) -> "Change":
        """What is changed, in lines."""
        old, new = original(self.module).splitlines(), self.source.splitlines()
        first = _common(old, new)
        last = _common(old[first:][::-1], new[first:][::-1])
        return Change(first + 1, _dedent(old[first : len(old) - last]), _dedent(new[first : len(new) - last]))


class Change(NamedTuple):
    """What a mutant is, for people and for the list of survivors."""

    line: int
    before: str
    """The lines that it replaces, without the indentation that they share."""
    after: str


def mutants(module: str) -> list[Mutant]:
    """Return a module's mutants."""
    tree, mutations, _, _ = create_mutations(module, original(module))
    functions, types, defaults = _places(tree)
    spans = {node: _span(node, name, original(module)) for node, name in functions.items()}
    made = []
    for number, mutation in enumerate(mutations):
        node = mutation.contained_by_top_level_function
        span = spans.get(node) if node is not None else None
        if span is not None and isinstance(node, cst.FunctionDef):
            start, end, depth = span
            text = _indented(node.deep_replace(mutation.original_node, mutation.mutated_node), depth)
        else:
            changed = tree.deep_replace(mutation.original_node, mutation.mutated_node)
            assert isinstance(changed, cst.Module)
            start, end, text = 0, len(original(module)), changed.code
        function = functions.get(node, "") if node is not None and mutation.original_node not in defaults else ""
        made.append(Mutant(module, number, function, _left_out(mutation, types), start, end, text))
    return made


@cache
def original(module: str) -> str:
    """Return the text of a module as it is."""
    return (SOURCE / module).read_text(encoding="utf-8")


def _span(node: cst.CSTNode, name: str, text: str) -> tuple[int, int, int] | None:
    """Return where a function's text begins and ends and how deep it is, if it can be told from the tree's own."""
    depth = name.count(".")
    own = _indented(node, depth)
    start = text.find(own)
    return (start, start + len(own), depth) if start >= 0 and text.count(own) == 1 else None


def _indented(node: cst.CSTNode | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNode], depth: int) -> str:
    assert isinstance(node, cst.FunctionDef)
    return textwrap.indent(cst.Module([node]).code, "    " * depth)


def _common(some: Sequence[str], others: Sequence[str]) -> int:
    """Return how many there are at the beginning that are the same."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        count += 1
    return count


def _places(tree: cst.Module) -> tuple[dict[cst.CSTNode, str], set[cst.CSTNode], set[cst.CSTNode]]:
    """Return the outermost functions by name, what is only types, and what runs when a function is defined."""
    functions: dict[cst.CSTNode, str] = {}
    types: set[cst.CSTNode] = set()
    defaults: set[cst.CSTNode] = set()

    def visit(body: tuple[cst.CSTNode, ...], prefix: str) -> None:
        for statement in body:
            if isinstance(statement, cst.ClassDef):
                visit(tuple(statement.body.body), f"{prefix}{statement.name.value}.")
            elif isinstance(statement, cst.FunctionDef):
                functions[statement] = prefix + statement.name.value
                defaults.update(_below(statement.params))
            elif isinstance(statement, cst.SimpleStatementLine) and _is_for_types(statement):
                types.update(_below(statement))

    visit(tuple(tree.body), "")
    return functions, types, defaults


def _below(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _below(child)


def _is_for_types(statement: cst.SimpleStatementLine) -> bool:
    text = cst.Module([]).code_for_node(statement)
    return ": TypeAlias = " in text or "= TypeVar(" in text


def _left_out(mutation: Mutation, types: set[cst.CSTNode]) -> str:
    node, mutated = mutation.original_node, mutation.mutated_node
    if node in types:
        return "types"
    if isinstance(node, cst.SimpleString) and isinstance(mutated, cst.SimpleString):
        if _SQL.match(node.raw_value):
            return "case of SQL" if mutated.raw_value.lower() == node.raw_value.lower() else ""
        if " " in node.raw_value and any(map(str.isalpha, node.raw_value)):
            return "wording"
    return ""


def _dedent(lines: list[str]) -> str:
    shared = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[shared:] for line in lines)
