"""The commands, their arguments, and what --help says of them."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from .. import __version__
from ..status import WorkflowStatus
from . import operate, pictures, queries, run
from .context import Context
from .exits import EXIT_CODES
from .loading import DB_VARIABLE

Command = Callable[[Context], int]

_DESCRIPTION = "Run, watch and move durable workflows that are kept in an SQLite file."
_CLASS = "the class: MODULE:CLASS, or FILE.py:CLASS; or a function of (workflow_id, persistence) that makes one"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}. See: {self.prog} --help\n")


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the whole command line; ``command`` of what it parses is the function to call."""
    parser = _Parser(
        prog=program,
        description=_DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dotmac-workflows {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Command, text: str, *, json: bool = False, db: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(command=command, actor=None, db=None, json=False, yes=False)
        if db:
            added.add_argument("--db", metavar="FILE", help=f"the database (default: ${DB_VARIABLE})")
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if json:
            added.add_argument("--json", action="store_true", help="write JSON for a program")
        return added

    _add_running(add)
    _add_looking(add)
    _add_recording(add)
    _add_proving(add)
    return parser


_Add = Callable[..., argparse.ArgumentParser]


def _prove(context: Context) -> int:
    from .prove import prove  # which no other command has to wait for

    return prove(context)


def _demo(context: Context) -> int:
    from .demo.script import demo  # which no other command has to wait for

    return demo(context)


def _add_running(add: _Add) -> None:
    command = add("demo", _demo, "run sample orders, kill their worker, and show what became of them", db=False)
    command.add_argument(
        "--folder", metavar="DIR", help="where to keep the databases (default: a new temporary folder)"
    )
    command = add("run", run.run, "run a workflow, or go on with it where it stopped", json=True)
    command.add_argument("workflow", metavar="MODULE:CLASS", help=_CLASS)
    command.add_argument("--id", required=True, help="names the run; the same id again goes on, and runs nothing twice")
    command.add_argument("--metadata", metavar="FILE", help="a JSON object that the run is about; - for standard input")
    for name, function, text in (
        ("resume", run.resume, "carry on a run that is paused, was decided, or was left by a crash"),
        ("retry", run.retry, "run a failed workflow forward again"),
        ("retry-rollback", run.retry_rollback, "try again what a rollback left undone"),
    ):
        command = add(name, function, text, json=True)
        command.add_argument("id", metavar="ID")
        command.add_argument("workflow", metavar="MODULE:CLASS", help=_CLASS)
        _add_actor(command)
    command = add("recover", run.recover_all, "carry on every run that is due and that nobody drives", json=True)
    command.add_argument("workflows", metavar="MODULE:CLASS", nargs="+", help=_CLASS)
    command.add_argument("--concurrency", type=_positive, default=10, metavar="N", help="so many at once; default 10")


def _add_proving(add: _Add) -> None:
    command = add("prove", _prove, "run a workflow under every schedule of crashes and failures", json=True, db=False)
    command.add_argument(
        "scenario",
        metavar="MODULE:SCENARIO",
        help="the dotmac_workflows.testing.Scenario: MODULE:NAME, or FILE.py:NAME; or a function that returns one",
    )
    command.add_argument("--budget", type=_positive, default=10_000, metavar="N", help="at most N; default 10000")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="what a budget draws by; default 0")
    command.add_argument("--schedule", metavar="TEXT", help='run just this one again, such as "clean crash@10"')
    command.add_argument(
        "--without", action="append", default=[], metavar="KIND", help="leave out crash, rival, freeze, pair, clock ..."
    )


def _add_looking(add: _Add) -> None:
    command = add("list", queries.list_runs, "list runs, the oldest first", json=True)
    statuses = [status.value for status in WorkflowStatus if status is not WorkflowStatus.PENDING]
    command.add_argument("--status", choices=statuses, metavar="STATUS", help=f"only these: {', '.join(statuses)}")
    command.add_argument("--type", metavar="NAME", help="only those of this class or type")
    command.add_argument("--since", metavar="WHEN", help="only those that changed since: 2026-07-01, 30m, 2h, 7d")
    command.add_argument("--limit", type=_positive, metavar="N", help="at most so many; says how to see more")
    command.add_argument("--after", metavar="ID", help="only those that come after this one")
    command = add("show", queries.show, "show the journal of a run: when, what, by whom", json=True)
    command.add_argument("id", metavar="ID")
    command.add_argument("--svg", metavar="FILE", help="write it as a picture instead; - for standard output")
    command = add("diagram", pictures.diagram, "draw a plan, or where a run stands, as a Mermaid flowchart")
    command.add_argument("what", metavar="MODULE:CLASS|ID", help=f"the run of an id in the database, or {_CLASS}")
    add("verify", queries.verify_store, "check every record of the database for damage", json=True)


def _add_recording(add: _Add) -> None:
    command = add("approve", operate.approve, "approve the step that a run waits at")
    command.add_argument("id", metavar="ID")
    command.add_argument("--data", metavar="FILE", help="a JSON object for the steps to come; - for standard input")
    _add_actor(command)
    for name, function, text in (
        ("reject", operate.reject, "reject the step that a run waits at, which ends the run"),
        ("pause", operate.pause, "hold a run before its next step"),
        ("cancel", operate.cancel, "end a run"),
    ):
        command = add(name, function, text)
        command.add_argument("id", metavar="ID")
        command.add_argument("--reason", metavar="TEXT", help="kept in the journal")
        _add_actor(command)
        if name != "pause":
            _add_yes(command)
    command = add("skip-rollback", operate.skip_rollback, "say that a step whose rollback failed was put right by hand")
    command.add_argument("id", metavar="ID")
    command.add_argument("step", metavar="STEP")
    command.add_argument("--reason", metavar="TEXT", required=True, help="kept in the journal")
    _add_actor(command)
    command = add("delete", operate.delete, "forget a run that ended, and its journal")
    command.add_argument("id", metavar="ID")
    command.add_argument("--force", action="store_true", help="also a run that did not end")
    _add_yes(command)


def _add_actor(command: argparse.ArgumentParser) -> None:
    command.add_argument("--as", dest="actor", metavar="NAME", help="who says so (default: the user logged in)")


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask; without a terminal nothing is asked")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)
