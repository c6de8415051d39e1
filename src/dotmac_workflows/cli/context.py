"""What every command is handed: its arguments, and where it writes."""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .exits import CommandError
from .loading import DB_VARIABLE, actor
from .standing import Commands
from .terminal import Part, Styled, Terminal


@dataclass
class Context:
    """One call of the command line."""

    arguments: argparse.Namespace
    program: str

    @cached_property
    def out(self) -> Terminal:
        """The standard output."""
        return Terminal(sys.stdout)

    @cached_property
    def err(self) -> Terminal:
        """The standard error output."""
        return Terminal(sys.stderr)

    @property
    def progress(self) -> Terminal:
        """Where to say what happens: not where a program reads JSON."""
        return self.err if self.arguments.json else self.out

    @property
    def db(self) -> str:
        """The database file.

        Raises:
            CommandError: None was named.
        """
        path: str | None = self.arguments.db or os.environ.get(DB_VARIABLE)
        if not path:
            raise CommandError(f"No database is named. Give --db FILE, or set {DB_VARIABLE}.")
        return path

    @property
    def actor(self) -> str:
        """Who gives the command."""
        return actor(self.arguments.actor)

    def commands(self, spec: str = "MODULE:CLASS") -> Commands:
        """Return how to write further commands."""
        return Commands(self.program, self.arguments.db, spec)

    def tell(self, *lines: str) -> None:
        """Say what to do next; an indented line is a command."""
        for line in lines:
            part: Part = Styled(line, "bold") if line.startswith("  ") else line
            self.progress.line(part)

    def print_json(self, value: Any) -> None:
        """Write a value for a program."""
        self.out.raw(json.dumps(value, indent=2) + "\n")
