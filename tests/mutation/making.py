"""The mutants of a module: mutmut makes them, and this says which are left out, and why.

mutmut's own command tries a mutant through a wrapper around each function, which shows in tracebacks (the engine looks
into those), and leaves out what is not in a function: half of this library's tables. So only its operators are used
here, `trying` runs the tests.
"""

import re
from collections.abc import Iterator
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

    @property
    def in_code(self) -> bool:
        """Whether the change is within the body of a function, so that it can be put into a loaded module."""
        return bool(self.function)


class Change(NamedTuple):
    """What a mutant is, for people and for the list of survivors."""

    line: int
    before: str
    """The lines that it replaces, without the indentation that they share."""
    after: str


def mutants(module: str) -> list[Mutant]:
    """Return a module's mutants."""
    tree, mutations = _made(module)
    functions, types, defaults = _places(tree)
    made = []
    for number, mutation in enumerate(mutations):
        function = functions.get(mutation.contained_by_top_level_function, "")
        if mutation.original_node in defaults:
            function = ""
        made.append(Mutant(module, number, function, _left_out(mutation, types)))
    return made


def source(mutant: Mutant) -> str:
    """Return the whole text of a mutant's module."""
    tree, mutations = _made(mutant.module)
    mutation = mutations[mutant.number]
    changed = tree.deep_replace(mutation.original_node, mutation.mutated_node)
    assert isinstance(changed, cst.Module)
    return changed.code


def change(mutant: Mutant) -> Change:
    """Return what a mutant changes."""
    old, new = original(mutant.module).splitlines(), source(mutant).splitlines()
    first = next((n for n, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(map(len, (old, new))))
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    return Change(first + 1, _dedent(old[first : len(old) - last]), _dedent(new[first : len(new) - last]))


def original(module: str) -> str:
    """Return the text of a module as it is."""
    return (SOURCE / module).read_text(encoding="utf-8")


@cache
def _made(module: str) -> tuple[cst.Module, list[Mutation]]:
    tree, mutations, _, _ = create_mutations(module, original(module))
    return tree, mutations


def _places(tree: cst.Module) -> tuple[dict[cst.CSTNode | None, str], set[cst.CSTNode], set[cst.CSTNode]]:
    """Return the outermost functions by name, what is only types, and what runs when a function is defined."""
    functions: dict[cst.CSTNode | None, str] = {}
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
        if " " in node.raw_value.strip():
            return "wording"
    return ""


def _dedent(lines: list[str]) -> str:
    shared = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[shared:] for line in lines)
