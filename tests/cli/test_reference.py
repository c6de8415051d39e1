"""The page on the command line has every command, option and exit code that there is, and no other."""

import argparse
import re
from pathlib import Path

from dotmac_workflows.cli.arguments import make_parser
from dotmac_workflows.cli.exits import EXIT_CODES

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = make_parser("dotmac-workflows")
    (found,) = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}


def test_commands() -> None:
    assert re.findall(r"(?m)^\| `([a-z][a-z-]*)[ `]", PAGE) == list(commands())


def test_options() -> None:
    there = set().union(*map(options, commands().values()))
    assert set(re.findall(r"[ `](--[a-z-]+)", PAGE)) - {"--help"} == there


def test_which_commands_have_the_shared_options() -> None:
    for option in ("--as", "--yes", "--json"):
        (row,) = re.findall(rf"(?m)^\| `{option}.*$", PAGE)
        named = {name for name in re.findall(r"`([a-z-]+)`", row) if not name.startswith("--")}
        assert named == {name for name, parser in commands().items() if option in options(parser)}
    for name, parser in commands().items():
        assert {"--db", "--debug"} & options(parser) == (
            {"--debug"} if name in ("demo", "prove") else {"--db", "--debug"}
        )


def test_exit_codes() -> None:
    listed = re.findall(r"(?m)^ +(\d+)  (.*)$", EXIT_CODES)
    rows = re.findall(r"(?m)^\| (\d+) \| (.*) \|$", PAGE)
    assert [code for code, _ in rows] == [code for code, _ in listed]
    for (_, page), (_, told) in zip(rows, listed, strict=True):
        assert page.startswith(told)
