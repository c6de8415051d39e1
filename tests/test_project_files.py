"""What holds for the files of the project: nothing of one machine in them, nothing too large, commands that match."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SOURCE = TOP / "src" / "dotmac_workflows"
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", ".github", ".ci")

MODULE_LINES = 400
FUNCTION_LINES = 50
CORE_LINES = 950

# Modules ("_run/drive.py") and functions ("_run/drive.py:drive") that may be larger, each with its reason.
LARGER: dict[str, str] = {}

# Split, so that this file does not name them.
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "yarnpkg" + ".com",
    "anaconda" + ".org",
    "conda" + "-forge.org",
]
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:" + "root|work" + r")/")
TEMPORARY_PATH = re.compile(r"(?<![\w.~$}-])/" + r"tmp\b")


def text_files() -> list[Path]:
    """Return the project's text files: those at the top, and all in the folders that are part of it."""
    paths = [path for path in TOP.iterdir() if path.is_file() and path.name != ".git"]
    for folder in FOLDERS:
        paths += (path for path in (TOP / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path for path in paths if b"\0" not in path.read_bytes())


def foreign_names(text: str, *, temporary_paths: bool) -> list[str]:
    """Return the machine paths and registry hosts that a text names."""
    found = [host for host in REGISTRY_HOSTS if host in text]
    found += MACHINE_PATH.findall(text)
    if not temporary_paths:
        found += TEMPORARY_PATH.findall(text)
    return found


@pytest.mark.parametrize("path", text_files(), ids=lambda path: path.relative_to(TOP).as_posix())
def test_no_machine_path_and_no_registry_host(path: Path) -> None:
    may_use_temporary_paths = path.relative_to(TOP).parts[0] in {"tests", "benchmarks"}
    text = path.read_text(encoding="utf-8", errors="replace")
    assert foreign_names(text, temporary_paths=may_use_temporary_paths) == []


def test_a_planted_name_is_found() -> None:
    assert foreign_names("see /" + "root/x", temporary_paths=True) == ["/" + "root/"]
    assert foreign_names("cd '/" + "work/x'", temporary_paths=True) == ["/" + "work/"]
    assert foreign_names("a = '/" + "tmp'", temporary_paths=False) == ["/" + "tmp"]
    assert foreign_names("https://" + REGISTRY_HOSTS[0] + "/simple", temporary_paths=True) == [REGISTRY_HOSTS[0]]
    assert foreign_names("how/work/goes, ./tmp/x, $HOME/tmp", temporary_paths=False) == []


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines that hold code: no docstring, no comment, not blank."""
    lines: set[int] = set()
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Yield the qualified name of each function, those inside others too, and how many lines of code it has."""
    lines = code_lines(source)

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}."
                if not isinstance(child, ast.ClassDef):
                    yield name[:-1], len(lines & set(range(child.lineno, (child.end_lineno or child.lineno) + 1)))
            yield from walk(child, name)

    yield from walk(ast.parse(source), "")


def source_files() -> dict[str, str]:
    """Return the text of the library's modules by their path in the package."""
    return {
        path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))
    }


def test_modules_and_functions_keep_their_size() -> None:
    larger = {}
    for path, source in source_files().items():
        if (size := len(code_lines(source))) > MODULE_LINES:
            larger[path] = size
        larger.update({f"{path}:{name}": size for name, size in functions(source) if size > FUNCTION_LINES})
    assert larger.keys() - LARGER.keys() == set(), f"split them, or give a reason in LARGER: {larger}"
    assert LARGER.keys() - larger.keys() == set(), "no longer larger: take them off the list"
    assert all(LARGER.values())


def test_the_core_stays_small() -> None:
    core = {path: len(code_lines(source)) for path, source in source_files().items() if path.startswith("_core/")}
    assert core
    assert sum(core.values()) <= CORE_LINES, core


def test_only_code_is_counted() -> None:
    source = '''\
"""Module.

Docstring.
"""

import re  # why


# A comment.
class Thing:
    """Docstring."""

    field: int
    """Docstring of the field."""

    def method(self) -> str:
        """Docstring."""
        return """
        text
        """
'''
    assert code_lines(source) == {6, 10, 13, 16, 18, 19, 20}
    assert list(functions(source)) == [("Thing.method", 4)]


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_readme_marks_its_commands(name: str) -> None:
    """`.ci/run` takes the commands out of the README; each is one line, so that it can be pasted."""
    lines = (TOP / "README.md").read_text(encoding="utf-8").splitlines()
    marker = f"<!-- command: {name} -->"
    assert lines.count(marker) == 1
    at = lines.index(marker)
    assert lines[at + 1] == "```bash"
    assert lines[at + 2].strip()
    assert lines[at + 3] == "```"
