"""What the README and the docs say is so: their snippets run, their output is real, their links lead somewhere.

The snippets of one page are one program, in the order of the page, and may await at top level. Where
``<!-- output -->`` stands before a text block, that is what the page's snippets have printed since the last one.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dotmac_workflows import errors
from dotmac_workflows._core import codec

TOP = Path(__file__).parents[1]
SOURCE = TOP / "src" / "dotmac_workflows"
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
OUTPUT = "<!-- output -->"


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line of text, from 1."""
    is_output: bool


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = re.fullmatch(r"( *)```(\w*)", lines[at])
        if fence is None:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
        body = "\n".join(line.removeprefix(fence[1]) for line in lines[at + 1 : end])
        yield Block(fence[2], body, at + 2, at > 0 and lines[at - 1].strip() == OUTPUT)
        at = end + 1


def run_page(text: str, name: str) -> list[tuple[str, str]]:
    """Run a page's snippets; return what each output block shows, and what was printed."""
    compared = []
    printed = io.StringIO()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in blocks(text):
            if block.language == "python":
                source = "\n" * (block.line - 1) + block.text
                code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
                with contextlib.redirect_stdout(printed):
                    if code.co_flags & inspect.CO_COROUTINE:
                        runner.run(eval(code, namespace))
                    else:
                        exec(code, namespace)
            elif block.is_output:
                compared.append((block.text, printed.getvalue().rstrip("\n")))
                printed = io.StringIO()
    return compared


def relative(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_snippets_run_and_print_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for shown, printed in run_page(page.read_text(encoding="utf-8"), relative(page)):
        assert printed == shown


def test_a_snippet_that_fails_and_an_output_that_differs_are_found() -> None:
    page = "```python\nasync def f():\n    return 1\n```\n\n```python\nprint(await f())\n```\n\n{}\n```text\n{}\n```\n"
    assert run_page(page.format(OUTPUT, "1"), "page") == [("1", "1")]
    assert run_page(page.format(OUTPUT, "2"), "page") == [("2", "1")]
    assert run_page(page.format("", "2"), "page") == []
    with pytest.raises(ZeroDivisionError):
        run_page("```python\n1 / 0\n```\n", "page")


def test_the_readme_shows_real_output() -> None:
    """At least one of its snippets is a class, and its output is compared."""
    found = list(blocks((TOP / "README.md").read_text(encoding="utf-8")))
    assert any(block.language == "python" and "(Workflow):" in block.text for block in found)
    assert any(block.is_output for block in found)


def test_the_commands_of_the_readme_work_on_its_class(tmp_path: Path) -> None:
    found = list(blocks((TOP / "README.md").read_text(encoding="utf-8")))
    (tmp_path / "my_module.py").write_text(next(block.text for block in found if block.language == "python"))
    (tmp_path / "purchase.json").write_text('{"card": "good"}')
    commands = [line.split() for block in found if block.language == "bash" for line in block.text.splitlines()]
    environment = {**os.environ, "PYTHONPATH": str(TOP / "src")}
    ended = []
    for program, *arguments in commands:
        if program == "dotmac-workflows":
            ran = subprocess.run(
                [sys.executable, "-m", "dotmac_workflows", *arguments],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
            ended.append((arguments[0], ran.returncode))
            if arguments[0] == "list":
                assert re.search(r"purchase-3 +Purchase +completed", ran.stdout)
    waits = 3
    assert ended == [("run", waits), *((verb, 0) for verb in ("approve", "recover", "list", "show", "verify"))]


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings have where it is shown."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    headings = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, TOP / "CHANGELOG.md", TOP / "CONTRIBUTING.md"], ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            lost.append(target)
    assert lost == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = TOP / "docs" / "index.md"
    links = re.findall(r"\]\(([^)\s#]+\.md)", index.read_text(encoding="utf-8"))
    linked = {(index.parent / link).resolve() for link in links}
    assert {page.resolve() for page in PAGES[1:]} - linked == {index.resolve()}


@pytest.mark.parametrize("page", PAGES[1:], ids=relative)
def test_the_modules_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (SOURCE / name).exists() and not (TOP / name).exists()] == []


def test_the_journal_reference_has_every_record() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([^|]*) \|", (TOP / "docs/reference/journal.md").read_text(encoding="utf-8"))
    documented = {kind: re.findall(r"`(\w+)`", fields) for kind, fields in rows}
    kinds = {kind: list(codec._EVENTS[event_type]) for event_type, kind in codec._KINDS.items()}
    assert {kind: fields for kind, fields in documented.items() if kind in kinds} == kinds


def test_the_error_reference_has_every_error() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|", (TOP / "docs/reference/errors.md").read_text(encoding="utf-8"))
    raised = [name for name, error in vars(errors).items() if isinstance(error, type) and issubclass(error, Exception)]
    assert sorted(row for row in rows if row.endswith("Error")) == sorted(raised)
