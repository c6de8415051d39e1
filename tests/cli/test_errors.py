"""What is wrong with a command is said in one line, with the exit code that stands for it."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_line import Cli
from dotmac_workflows import errors
from dotmac_workflows.cli import main
from dotmac_workflows.cli.exits import code_of_error

RUN = ("--id", "order-1")


def error_of(cli: Cli, *arguments: str) -> str:
    """Return the error line of a command that is refused for how it was given."""
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    return answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "argument COMMAND: invalid choice: 'fly' (choose from"),
        (["run"], "the following arguments are required: MODULE:CLASS, --id. See: dotmac-workflows run --help"),
        (["run", "shop:Order"], "the following arguments are required: --id"),
        (["list", "--stat", "failed"], "unrecognized arguments: --stat failed"),
        (["list", "--status", "lost"], "argument --status: invalid choice: 'lost'"),
        (["list", "--limit", "0"], "argument --limit: '0' is no number from 1. See: dotmac-workflows list --help"),
        (["recover", "shop:Order", "--concurrency", "many"], "argument --concurrency: 'many' is no number from 1."),
        (["skip-rollback", "order-1", "reserve"], "the following arguments are required: --reason"),
    ],
)
def test_arguments(cli: Cli, arguments: list[str], message: str) -> None:
    assert f"error: {message}" in error_of(cli, *arguments)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shop", "'shop' names no class. Give MODULE:CLASS or FILE.py:CLASS, such as shop.orders:Order."),
        ("shop:", "'shop:' names no class. Give MODULE:CLASS or FILE.py:CLASS, such as shop.orders:Order."),
        ("shop:Ordr", "shop has no 'Ordr'; its workflows: Order, Bare, Needy, Exploding."),
        ("shop:Order.Inner", "shop has no 'Order.Inner'; its workflows: Order, Bare, Needy, Exploding."),
        ("shop:Workflow", "Workflow of shop is no workflow; its workflows: Order, Bare, Needy, Exploding."),
        ("shop:not_a_workflow", "not_a_workflow of shop is no workflow; its workflows: Order, Bare, Needy, Exploding."),
        ("json:JSONDecoder", "JSONDecoder of json is no workflow; give a subclass of dotmac_workflows.Workflow."),
        ("shop.deep:Order", "There is no module 'shop.deep', neither in "),
        ("nowhere.py:Order", "There is no file 'nowhere.py'. Give MODULE:CLASS or FILE.py:CLASS."),
        ("broken:Order", "broken cannot be imported: ZeroDivisionError: division by zero ("),
        ("broken.py:Order", "broken.py cannot be imported: ZeroDivisionError: division by zero ("),
        ("garbled:Order", "garbled cannot be imported: SyntaxError: invalid syntax (garbled.py, line 1)."),
        ("leaving.py:Order", "leaving.py cannot be imported: SystemExit: 3 ("),
        ("wanting:Order", "wanting cannot be imported: ModuleNotFoundError: No module named 'not_installed' ("),
        ("shop:Needy", "Needy cannot be made with workflow_id, persistence: missing a required argument: 'gateway'."),
        ("shop:Exploding", "Exploding cannot be made for 'order-1': OSError: no gateway."),
        ("shop:make_nothing", "make_nothing made None, which is no workflow of this id in this database."),
        ("shop:make_another", "make_another made <Order 'another' pending>, which is no workflow of this id in this"),
        ("shop:forget_the_store", "forget_the_store made <Order 'order-1' pending>, which is no workflow of this id"),
    ],
)
def test_classes(cli: Cli, shop: Path, spec: str, message: str) -> None:
    (shop / "broken.py").write_text("\n1 / 0\n")
    (shop / "garbled.py").write_text("class Order(:\n")
    (shop / "leaving.py").write_text("raise SystemExit(3)\n")
    (shop / "wanting.py").write_text("import not_installed\n")
    assert error_of(cli, "run", spec, *RUN).startswith(f"error: {message}")
    for name in ("broken", "leaving", "wanting"):
        assert name not in sys.modules


def test_a_module_that_is_not_there(cli: Cli, shop: Path) -> None:
    assert error_of(cli, "run", "nowhere.at_all:Order", *RUN) == (
        f"error: There is no module 'nowhere', neither in {shop} nor where Python looks. Give MODULE:CLASS, or a "
        "path, FILE.py:CLASS.\n"
    )


def test_the_place_of_an_error_is_named(cli: Cli, shop: Path) -> None:
    (shop / "broken.py").write_text("\n1 / 0\n")
    assert error_of(cli, "run", "broken:Order", *RUN).endswith(f" ({shop / 'broken.py'}, line 2).\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{'a': 1}", "is not JSON: Expecting property name enclosed in double quotes (line 1, column 2)."),
        (b'{"a":\n 1,,}', "is not JSON: Expecting property name enclosed in double quotes (line 2, column 4)."),
        (b"", "is not JSON: Expecting value (line 1, column 1)."),
        (b"[1]", 'is a JSON array; give an object, such as {"amount": 5}.'),
        (b'"text"', 'is a JSON string; give an object, such as {"amount": 5}.'),
        (b"5", 'is a JSON number; give an object, such as {"amount": 5}.'),
        (b"true", 'is a JSON boolean; give an object, such as {"amount": 5}.'),
        (b"null", 'is a JSON null; give an object, such as {"amount": 5}.'),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 8)."),
        (b'{"a": ' + b"[" * 100_000, "nests too deep."),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read: Exceeds the limit (4300 digits) for integer string"),
    ],
)
def test_metadata(cli: Cli, shop: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str) -> None:
    (shop / "order.json").write_bytes(content)
    error = error_of(cli, "run", "shop:Order", *RUN, "--metadata", "order.json")
    assert error.startswith("error: The metadata in 'order.json' ") or "metadata in 'order.json' cannot" in error
    assert message in error
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert "in the standard input " in error_of(cli, "run", "shop:Order", *RUN, "--metadata", "-")
    assert not (shop / "shop.db").exists()


def test_metadata_that_is_not_there(cli: Cli) -> None:
    assert error_of(cli, "run", "shop:Order", *RUN, "--metadata", "none.json") == (
        "error: The metadata cannot be read from 'none.json': No such file or directory.\n"
    )
    assert error_of(cli, "run", "shop:Order", *RUN, "--metadata", ".") == (
        "error: The metadata cannot be read from '.': Is a directory.\n"
    )


def test_metadata_that_cannot_be_stored(cli: Cli, shop: Path) -> None:
    (shop / "order.json").write_text('{"amount": NaN}')
    assert error_of(cli, "run", "shop:Order", *RUN, "--metadata", "order.json") == (
        "error: metadata.amount is nan, which JSON cannot hold. Store None or a string instead.\n"
    )
    assert cli("list", "--json").out == "[]\n"


@pytest.mark.parametrize("given", ["", "a\nb", "\x1b[31mred", "x" * 201])
def test_ids(cli: Cli, given: str) -> None:
    error = error_of(cli, "run", "shop:Order", "--id", given)
    assert error.startswith("error: A workflow id must be a string of 1 to 200 printable characters, not '")
    assert "\x1b" not in error


@pytest.mark.parametrize("when", ["yesterday", "5y", "2026-13-01", "9999999d", ""])
def test_times(cli: Cli, when: str) -> None:
    assert error_of(cli, "list", "--since", when) == (
        f"error: --since {when!r} is no time. Give a date, 2026-07-01 or 2026-07-01T12:30 (UTC), or how long ago: "
        "30m, 2h, 7d.\n"
    )


def test_an_actor_who_is_nobody(cli: Cli) -> None:
    cli("run", "shop:Order", *RUN, "--metadata", {"approve_after": "check"})
    assert (
        error_of(cli, "approve", "order-1", "--as", " ") == "error: --as names nobody. Give a name, or leave it out.\n"
    )


def test_a_user_whom_the_system_does_not_know(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", getuser)
    monkeypatch.setattr("os.getuid", lambda: 1234)
    cli("run", "shop:Order", *RUN, "--metadata", {"approve_after": "check"})
    assert cli("approve", "order-1").out.splitlines()[0] == "'order-1' was approved by uid 1234; it is due."


EACH_BUT_RUN: list[list[str]] = [
    ["list"],
    ["show", "order-1"],
    ["verify"],
    ["approve", "order-1"],
    ["reject", "order-1"],
    ["pause", "order-1"],
    ["cancel", "order-1"],
    ["skip-rollback", "order-1", "check", "--reason", "x"],
    ["delete", "order-1"],
    ["resume", "order-1", "shop:Order"],
    ["retry", "order-1", "shop:Order"],
    ["retry-rollback", "order-1", "shop:Order"],
    ["recover", "shop:Order"],
]


@pytest.mark.parametrize("arguments", EACH_BUT_RUN, ids=lambda arguments: arguments[0])
def test_only_run_makes_a_database(cli: Cli, shop: Path, arguments: list[str]) -> None:
    expected = (
        4,
        "",
        "error: There is no database 'none.db'. Check --db and DOTMAC_WORKFLOWS_DB; only 'run' makes a new one.\n",
    )
    answer = cli(*arguments, "--db", "none.db")
    assert (answer.code, answer.out, answer.err) == expected
    (shop / "none.db").touch()  # what is empty would become one
    answer = cli(*arguments, "--db", "none.db")
    assert (answer.code, answer.out, answer.err) == expected
    assert [path.name for path in shop.iterdir() if path.name.startswith("none")] == ["none.db"]
    assert (shop / "none.db").stat().st_size == 0


@pytest.mark.parametrize("arguments", [["run", "shop:Order", *RUN], *EACH_BUT_RUN], ids=lambda arguments: arguments[0])
def test_a_database_has_to_be_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.delenv("DOTMAC_WORKFLOWS_DB")
    assert error_of(cli, *arguments) == ("error: No database is named. Give --db FILE, or set DOTMAC_WORKFLOWS_DB.\n")


@pytest.mark.parametrize("arguments", [a for a in EACH_BUT_RUN if "order-1" in a], ids=lambda arguments: arguments[0])
def test_a_run_that_is_not_there(cli: Cli, shop: Path, arguments: list[str]) -> None:
    cli("run", "shop:Order", "--id", "another")
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (5, "")
    assert answer.err == (
        f"error: There is no workflow 'order-1' in '{shop}/shop.db'. See which there are with 'list'.\n"
    )


def test_a_file_that_is_no_database(cli: Cli, shop: Path) -> None:
    (shop / "notes.txt").write_text("These are notes, and they are longer than the head of a database." * 20)
    before = (shop / "notes.txt").read_bytes()
    for arguments in (["list"], ["run", "shop:Order", *RUN]):
        answer = cli(*arguments, "--db", "notes.txt")
        assert (answer.code, answer.out) == (4, "")
        assert answer.err.startswith(f"error: '{shop}/notes.txt' is not a SQLite database (")
        assert answer.err.count("\n") == 1
    assert (shop / "notes.txt").read_bytes() == before


def test_a_folder_that_is_not_there(cli: Cli, shop: Path) -> None:
    answer = cli("run", "shop:Order", *RUN, "--db", "no/where.db")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err == (
        f"error: '{shop}/no/where.db' cannot be opened: there is no directory '{shop}/no'. Create it.\n"
    )


def test_another_class_than_the_run_s(cli: Cli) -> None:
    cli("run", "shop:Order", *RUN, "--metadata", {"approve_after": "check"})
    cli("approve", "order-1")
    for arguments in (["run", "shop:Bare", *RUN], ["resume", "order-1", "shop:Bare"]):
        answer = cli(*arguments)
        assert (answer.code, answer.out) == (5, "")
        assert answer.err == (
            "error: Workflow 'order-1' was started as a Order; a Bare has other steps. Load it with the class Order.\n"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["approve", "order-1"], "is not waiting for approval; it is completed. There is nothing left to do."),
        (["pause", "order-1"], "cannot be paused; it is completed. There is nothing left to do."),
        (["cancel", "order-1"], "cannot be cancelled; it is completed. There is nothing left to do."),
        (["retry", "order-1", "shop:Order"], "cannot be retried: only a failed one can; it is completed."),
        (["retry-rollback", "order-1", "shop:Order"], "has no incomplete rollback; it is completed."),
        (["skip-rollback", "order-1", "check", "--reason", "x"], "has no incomplete rollback; it is completed."),
    ],
)
def test_what_the_state_does_not_allow(cli: Cli, arguments: list[str], message: str) -> None:
    cli("run", "shop:Order", *RUN)
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith(f"error: Workflow 'order-1' {message}")
    assert answer.err.count("\n") == 1


def test_an_error_that_was_not_foreseen(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no\x1b[31mthing\nleft")

    cli("run", "shop:Order", *RUN)
    monkeypatch.setattr("dotmac_workflows.cli.queries.verify", explode)
    answer = cli("verify")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: ZeroDivisionError: nothing left (--debug shows the traceback)\n"
    answer = cli("verify", "--debug")
    assert answer.err.startswith("Traceback (most recent call last):\n")
    assert answer.err.endswith(
        "ZeroDivisionError: nothing\nleft\nerror: ZeroDivisionError: nothing left (--debug shows the traceback)\n"
    )


def test_an_interruption_of_what_runs_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    cli("run", "shop:Order", *RUN)
    monkeypatch.setattr("dotmac_workflows.cli.queries.open_store", interrupt)
    answer = cli("list")
    assert (answer.code, answer.out, answer.err) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.WorkflowConfigurationError(), 2),
        (errors.ResultNotSerializableError(), 2),
        (errors.PayloadTooLargeError(), 2),
        (errors.PersistenceError(), 4),
        (errors.ConcurrencyError(), 4),
        (errors.JournalCorruptError(), 4),
        (errors.JournalTooNewError(), 4),
        (errors.WorkflowExecutionError(), 5),
        (errors.AlreadyDecidedError(), 5),
        (errors.WorkflowDefinitionError(), 5),
        (errors.WorkflowNotFoundError(), 5),
        (errors.LeaseLostError(), 5),
        (errors.WorkflowError(), 5),
        (ZeroDivisionError(), 1),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else None,
)
def test_each_error_has_its_code(error: Exception, code: int) -> None:
    assert code_of_error(error) == code


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    answer = cli()
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("usage: dotmac-workflows [-h] [--version] COMMAND ...\n")
    assert "\nexit codes:\n    0  done" in answer.err
    assert max(map(len, answer.err.splitlines())) <= 80


def test_help_and_version(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "dotmac-workflows 1.0.0\n"
    for name in ("run", "list", "show", "verify", "approve", "reject", "pause", "resume", "cancel", "retry", "delete"):
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: dotmac-workflows {name} ")
        assert "\nexit codes:\n    0  done" in shown
        assert max(map(len, shown.splitlines())) <= 80
