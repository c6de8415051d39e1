"""What the README and the docs say is so: their snippets run, their output is real, their links lead somewhere.

The snippets of one page are one program, in the order of the page, and may await at top level. What stands before a
block says more of it: ``<!-- output -->``, what the page's snippets have printed since the last one; ``<!-- file: NAME
-->``, a file that the reader saves; ``<!-- edit: NAME -->``, lines of it that the reader changes; ``<!-- run -->``,
commands that the reader gives, in a folder where the examples are; ``<!-- from: PATH -->``, a part of that file of the
project, which is tested where it is.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import dotmac_workflows
from dotmac_workflows import errors, persistence, testing
from dotmac_workflows._core import codec

TOP = Path(__file__).parents[1]
SOURCE = TOP / "src" / "dotmac_workflows"
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
GENERATED = sorted((TOP / "docs" / "reference" / "api").glob("*.rst"))
OUTPUT = "<!-- output -->"
RUN = "<!-- run -->"


# What an activated environment brings, for the tree at hand.
COMMAND_LINE = "import sys; from dotmac_workflows.cli import main; sys.argv[0] = 'dotmac-workflows'; sys.exit(main())"
PROGRAMS = f"""\
python() {{ exec '{sys.executable}' "$@"; }}
pytest() {{
    export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
    exec '{sys.executable}' -m pytest -p dotmac_workflows.integrations.pytest_plugin "$@"
}}
dotmac-workflows() {{ exec '{sys.executable}' -c "{COMMAND_LINE}" "$@"; }}"""


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line of text, from 1."""
    before: str
    """The line before it, such as ``<!-- output -->``."""

    @property
    def is_output(self) -> bool:
        return self.before == OUTPUT

    @property
    def file(self) -> str | None:
        """The file that the reader is to save it as."""
        marked = re.fullmatch(r"<!-- file: (\S+) -->", self.before)
        return marked and marked[1]

    @property
    def edited(self) -> str | None:
        """The file in which the reader is to make this change."""
        marked = re.fullmatch(r"<!-- edit: (\S+) -->", self.before)
        return marked and marked[1]

    def edit(self, text: str) -> str:
        """Return a text with this change made."""
        old, new = (
            "\n".join(line[1:] for line in self.text.splitlines() if not line.startswith(left_out))
            for left_out in ("+", "-")
        )
        assert text.count(old) == 1, f"{old!r} is not in {self.edited} once"
        return text.replace(old, new)

    @property
    def source(self) -> str | None:
        """The file of the project that it is a part of."""
        marked = re.fullmatch(r"<!-- from: (\S+) -->", self.before)
        return marked and marked[1]


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
        yield Block(fence[2], body, at + 2, lines[at - 1].strip() if at else "")
        at = end + 1


def run_command(command: str, environment: dict[str, str]) -> str:
    """Give a command to the shell; return what the reader would see of it."""
    if exported := re.fullmatch(r"export (\w+)=(\S+)", command):
        environment[exported[1]] = exported[2]
        return ""
    ran = subprocess.run(
        ["bash", "-c", f"{PROGRAMS}\n{command}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    # A shell that one types into says so itself.
    return ran.stdout + ("Killed\n" if ran.returncode == -signal.SIGKILL else "")


def steady(text: str) -> str:
    """Make alike what is not the same twice: times, durations, processes, and the columns that their width moves."""
    for pattern, stands_for in (
        (r"\d\d:\d\d:\d\d", "TIME"),
        (r"\d{4}-\d\d-\d\d", "DATE"),
        (r"<?\d+(\.\d+)? ?m?s\b", "DURATION"),
        (r"[\d,]+ a second", "RATE"),
        (r"=+", "="),
        (r"by \S+ \(process \d+\)", "PROCESS"),
        (r" +", " "),
    ):
        text = re.sub(pattern, stands_for, text)
    return text


def run_page(text: str, name: str) -> list[tuple[str, str]]:
    """Run a page's snippets; return what each output block shows, and what was printed."""
    compared = []
    printed = io.StringIO()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    # The plugins of pytest that are installed here have something to say of settings that a reader has not made.
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOP / "src"),
        "COLUMNS": "80",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    with asyncio.Runner() as runner:
        for block in blocks(text):
            if block.file:
                Path(block.file).write_text(block.text + "\n", encoding="utf-8")
            elif block.edited:
                file = Path(block.edited)
                file.write_text(block.edit(file.read_text(encoding="utf-8")), encoding="utf-8")
            elif block.before == RUN:
                for command in block.text.splitlines():
                    printed.write(run_command(command, environment))
            elif block.language == "python" and not block.source:
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


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """A page may set up logging, as a program does."""
    loggers = [logging.getLogger(name) for name in ("dotmac_workflows", "__main__")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_snippets_run_and_print_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    if RUN in text and not Path("/proc/self").exists():
        pytest.skip("elsewhere than on Linux its commands have to wait for the lease of a process that was killed")
    monkeypatch.chdir(tmp_path)
    if "examples/" in text:
        (tmp_path / "examples").symlink_to(TOP / "examples")
    for shown, printed in run_page(text, relative(page)):
        assert steady(printed) == steady(shown)


def test_a_snippet_that_fails_and_an_output_that_differs_are_found() -> None:
    page = "```python\nasync def f():\n    return 1\n```\n\n```python\nprint(await f())\n```\n\n{}\n```text\n{}\n```\n"
    assert run_page(page.format(OUTPUT, "1"), "page") == [("1", "1")]
    assert run_page(page.format(OUTPUT, "2"), "page") == [("2", "1")]
    assert run_page(page.format("", "2"), "page") == []
    with pytest.raises(ZeroDivisionError):
        run_page("```python\n1 / 0\n```\n", "page")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_files_commands_and_what_they_say_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = f"""
<!-- file: said.py -->
```python
import os, signal
print(os.environ["WORD"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
```

{RUN}
```bash
export WORD=good
python said.py
WORD=bad dotmac-workflows show order-1 --db none.db
```

{OUTPUT}
```text
```
"""
    ((shown, printed),) = run_page(page, "page")
    assert shown == ""
    assert printed.splitlines()[:2] == ["good", "Killed"]
    assert printed.splitlines()[2].startswith("error: There is no database 'none.db'")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_what_a_page_shows_of_a_file_is_in_it(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.source:
            lines = [line.strip() for line in (TOP / block.source).read_text(encoding="utf-8").splitlines()]
            part = [line.strip() for line in block.text.splitlines()]
            without_docstring = [line for line in lines if not line.startswith('"""')]
            assert "\n".join(part) in "\n".join(without_docstring)


def test_only_what_is_not_the_same_twice_is_made_alike() -> None:
    one = "12:04:31  step done  charge  9.1 ms  by host-7 (process 12)"
    other = "07:59:00  step done  charge   <1 ms  by host (process 4711)"
    assert steady(one) == steady(other)
    assert steady(one) != steady(other.replace("charge", "ship"))
    assert steady("2 runs, 10 records") != steady("2 runs, 11 records")
    assert steady("40 held (2.1 s, 1,234 a second)") == steady("40 held (12.0 s, 99 a second)")
    assert steady("==== 1 passed in 4.67s ===") == steady("=== 1 passed in 14.67s ===")
    assert steady("40 held (2.1 s, 1,234 a second)") != steady("41 held (2.1 s, 1,234 a second)")


def test_an_edit_changes_a_file_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    change = "<!-- edit: said.txt -->\n```diff\n one\n-two\n+2\n three\n```\n"
    run_page(f"<!-- file: said.txt -->\n```text\nzero\none\ntwo\nthree\n```\n\n{change}", "page")
    assert Path("said.txt").read_text() == "zero\none\n2\nthree\n"
    with pytest.raises(AssertionError, match="is not in said.txt once"):
        run_page(change, "page")


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
    links = re.findall(r"\]\(([^)\s#]+\.(?:md|rst))", index.read_text(encoding="utf-8"))
    linked = {(index.parent / link).resolve() for link in links}
    pages = {page.resolve() for page in (*PAGES[1:], *GENERATED)}
    assert pages - linked == {index.resolve()}


@pytest.mark.parametrize("page", PAGES[1:], ids=relative)
def test_the_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    saved = {block.file for block in blocks(text)}
    named = set(re.findall(r"`([\w/]+\.py)`", text)) - saved
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


def test_the_generated_reference_has_every_public_name() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in GENERATED)
    named = re.findall(r"(?m)^\.\. auto\w+:: dotmac_workflows\.(?:\w+\.)?(\w+)$", text)
    public = {*dotmac_workflows.__all__, *persistence.__all__, *testing.__all__}
    assert public - set(named) == set()
    assert len(named) == len(set(named))
