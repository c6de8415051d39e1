"""prove: a scenario is loaded, run, and what held or broke is told to people and to programs."""

import gc
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from command_line import Cli, Screen, call

PROOFS = """
from dotmac_workflows import Workflow, WorkflowResult
from dotmac_workflows.testing import Scenario


class Till:
    def __init__(self):
        self.charges = []
        self._keys = set()

    def charge_the_card_of(self, amount, key):
        if key not in self._keys:
            self._keys.add(key)
            self.charges.append(amount)


class Sale(Workflow):
    def __init__(self, till, workflow_id, persistence):
        super().__init__(workflow_id, ["greet", "charge"], persistence=persistence)
        self.till = till

    async def execute_step(self, step):
        print("step", step)
        if step == "charge":
            self.charge()
        return WorkflowResult(True, step)

    def charge(self):
        self.till.charge_the_card_of(50, self.step_context.idempotency_key)


class Hasty(Sale):
    def charge(self):
        self.till.charge_the_card_of(50, object())


def check(till, sale):
    raise LookupError("no receipt")


sale = Scenario(world=Till, workflow=Sale)
hasty = Scenario(world=Till, workflow=Hasty, name="a sale, in great haste and with a name that is longer than a line")
checked = Scenario(world=Till, workflow=Sale, check=check)


def made():
    return hasty


def made_of_nothing():
    return 5


def explodes():
    raise OSError("no gateway")


def leaves():
    raise SystemExit(3)


def of_a_till(till):
    raise AssertionError


async def made_later():
    return hasty


class Long(Sale):
    def __init__(self, till, workflow_id, persistence):
        Workflow.__init__(self, workflow_id, [f"step {number}" for number in range(20)], persistence=persistence)


long = Scenario(world=lambda: None, workflow=Long)
"""


@pytest.fixture
def proofs(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which holds the module `proofs`."""
    (shop / "proofs.py").write_text(PROOFS)
    monkeypatch.delitem(sys.modules, "proofs", raising=False)
    return shop


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize("spec", ["proofs:sale", "proofs.py:sale"])
def test_what_holds_is_a_report(cli: Cli, spec: str) -> None:
    answer = cli("prove", spec, "--budget", "12", "--seed", "7", "--without", "rival", "--without", "pair")
    assert (answer.code, answer.err) == (0, "")
    assert re.match(
        r"Sale: \d+ schedules were run, and all held \(.*\)\n\n"
        r"  courses without a fault +\d+\n  a call that fails +1\n  one crash +8 of \d+, drawn by seed 7\n"
        r"  a frozen process +3 of at least ",
        answer.out,
    )
    assert "    rival: left out\n" in answer.out
    assert "step greet" not in answer.out


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize("name", ["hasty", "made"])
def test_what_breaks_is_told_in_lines_that_fit_with_the_command_that_runs_it_again(cli: Cli, name: str) -> None:
    answer = cli("prove", f"proofs:{name}")
    assert (answer.code, answer.err) == (1, "")
    lines = answer.out.splitlines()
    assert lines[:5] == [
        "a sale, in great haste and with a name that is longer than a line does not hold.",
        "",
        "A crash in step 'charge', after Till.charge_the_card_of() and before that was",
        "recorded. Step 'charge' ran again, with the same idempotency key.",
        "  the world shows  charges is [50, 50]",
    ]
    struck = lines.index("      CRASH, in step 'charge', after Till.charge_the_card_of() and before that")
    assert lines[struck + 1] == "        was recorded"
    assert [line for line in lines if len(line) > 80] == []
    again = re.fullmatch(rf"  dotmac-workflows prove proofs:{name} --schedule '(clean crash@\d+)'", lines[-1])
    assert again is not None
    once_more = cli("prove", f"proofs:{name}", "--schedule", again[1])
    assert (once_more.code, once_more.out) == (1, answer.out)
    assert cli("prove", "proofs:sale", "--schedule", again[1]).code == 0


@pytest.mark.usefixtures("proofs")
def test_for_a_program(cli: Cli) -> None:
    held = cli("prove", "proofs:sale", "--budget", "5", "--json")
    told = json.loads(held.out)
    assert (held.code, held.err, told["holds"], told["scenario"], told["rounds"][2]["run"]) == (0, "", True, "Sale", 3)
    assert told.keys() == {
        *"scenario holds schedules points struck rounds steps rollbacks gates not_covered seed seconds".split()
    }
    broke = cli("prove", "proofs:hasty", "--json")
    told = json.loads(broke.out)
    assert (broke.code, broke.err, told["holds"]) == (1, "", False)
    assert told.keys() == {*"scenario holds schedule headline details advice timeline".split()}
    assert told["details"][0].endswith("charges is [50, 50]")
    assert json.loads(cli("prove", "proofs:hasty", "--json", "--schedule", told["schedule"]).out) == told


@pytest.mark.usefixtures("proofs")
def test_debug_shows_what_steps_print_and_where_a_check_raised(cli: Cli) -> None:
    answer = cli("prove", "proofs:checked")
    assert (answer.code, answer.err) == (1, "")
    assert "  the check says LookupError: no receipt" in answer.out
    answer = cli("prove", "proofs:checked", "--debug")
    assert answer.out.startswith("step greet\nstep charge\n")
    assert 'raise LookupError("no receipt")' in answer.err
    assert answer.err.endswith("\nLookupError: no receipt\n")


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["proofs"],
            "'proofs' names no scenario. Give MODULE:SCENARIO or FILE.py:SCENARIO, such as tests.proofs:order.",
        ),
        (["proofs:sail"], "proofs has no 'sail'; its scenarios: sale, hasty, checked, long."),
        (["proofs:Sale"], "Sale of proofs is no scenario; its scenarios: sale, hasty, checked, long."),
        (["proofs:made_of_nothing"], "made_of_nothing of proofs is no scenario; its scenarios: "),
        (["json:dumps.x"], "json has no 'dumps.x'; give a dotmac_workflows.testing.Scenario, or a function"),
        (["nowhere.py:sale"], "There is no file 'nowhere.py'. Give MODULE:SCENARIO or FILE.py:SCENARIO."),
        (["nowhere:sale"], "There is no module 'nowhere', neither in "),
        (["proofs:sale", "--budget", "0"], "argument --budget: '0' is no number from 1."),
        (["proofs:sale", "--without", "luck"], "prove(): without names luck."),
        (["proofs:sale", "--schedule", "clean crush@1"], "'crush@1' in the schedule 'clean crush@1' cannot be read"),
    ],
)
def test_what_is_wrong_as_given(cli: Cli, arguments: list[str], message: str) -> None:
    answer = cli("prove", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {message}")


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("explodes", "cannot be called: OSError: no gateway (HERE, line 55)."),
        ("leaves", "cannot be called: SystemExit: 3 (HERE, line 59)."),
        ("of_a_till", "cannot be called: TypeError: of_a_till() missing 1 required positional argument: 'till'."),
        ("made_later", "is no scenario; its scenarios: sale, hasty, checked, long."),
    ],
)
def test_a_function_that_makes_no_scenario_is_named(cli: Cli, shop: Path, name: str, message: str) -> None:
    answer = cli("prove", f"proofs:{name}")
    gc.collect()  # warnings are errors: of a coroutine that nobody awaited, too
    said = f"error: {name} of proofs {message}\n".replace("HERE", str(shop / "proofs.py"))
    assert (answer.code, answer.out, answer.err) == (2, "", said)


@pytest.mark.usefixtures("proofs")
def test_debug_shows_where_a_function_that_makes_a_scenario_raised(cli: Cli) -> None:
    answer = cli("prove", "proofs:explodes", "--debug")
    assert answer.code == 2
    assert 'raise OSError("no gateway")' in answer.err


def test_a_module_that_cannot_be_imported_is_named(cli: Cli, shop: Path) -> None:
    (shop / "broken.py").write_text("\n1 / 0\n")
    answer = cli("prove", "broken:sale")
    place = f"({shop / 'broken.py'}, line 2)"
    said = f"error: broken cannot be imported: ZeroDivisionError: division by zero {place}.\n"
    assert (answer.code, answer.out, answer.err) == (2, "", said)
    assert "    1 / 0" in cli("prove", "broken:sale", "--debug").err


# What the user's code writes.

NOISE = """
import atexit
import logging
import sys
import warnings

from proofs import Sale, Scenario, Till

held = sys.stderr
logging.basicConfig(level="DEBUG", format="%(message)s")  # its handler holds the error output of now
logging.getLogger().addHandler(logging.FileHandler("log"))
logging.info("at import")
logging.disable(logging.DEBUG)


@atexit.register
def farewell():
    logging.debug("disabled before")
    logging.info("at exit")
    print("at exit, printed", file=sys.stderr)


class Noisy(Sale):
    async def execute_step(self, step):
        logging.info("noise 1")
        logging.log(99, "noise 2")
        print("noise 3", file=sys.stderr)
        print("noise 4", file=held)
        warnings.warn("noise 5")
        sys.stderr.writelines(["noise 6\\n"])
        sys.stderr.flush()
        print("noise 7")
        print("noise 8 \\ud800", file=sys.stderr)
        sys.stderr.buffer.write(b"noise 9\\n")
        return await super().execute_step(step)


noisy = Scenario(world=Till, workflow=Noisy)
"""


@pytest.fixture
def noise(proofs: Path) -> Path:
    """Return the current folder, which also holds the module `noise`."""
    (proofs / "noise.py").write_text(NOISE)
    return proofs


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_steps_write_and_log_is_dropped_and_what_is_written_outside_of_them_is_not(
    noise: Path, options: list[str]
) -> None:
    code, out, err = call(noise, "prove", "noise:noisy", "--budget", "20", *options)
    assert (code, err.splitlines()) == (0, ["at import", "at exit", "at exit, printed"])
    assert "noise" not in out
    assert (noise / "log").read_text().splitlines() == ["at import", "at exit"]
    assert ('"holds": true' if options else " schedules were run, and all held (") in out


def test_debug_shows_what_steps_write_and_log(noise: Path) -> None:
    code, out, err = call(noise, "prove", "noise:noisy", "--schedule", "clean", "--debug")
    shown = set(re.findall(r"noise \d", out + err))
    assert (code, shown) == (0, {f"noise {number}" for number in range(1, 10)})


def test_on_a_terminal_nothing_that_steps_write_stands_between_the_words_of_progress(noise: Path) -> None:
    screen = Screen(noise, "prove", "noise:noisy", "--budget", "400")
    assert screen.end() == 0
    assert "noise" not in screen.shown
    assert re.search(r"([\d,]+) of ([\d,]+) schedules, [\d,]+ a second\r +\r", screen.shown)
    assert "\x1b[32mNoisy: " in screen.shown


def test_an_error_is_told_although_what_steps_write_is_dropped(noise: Path) -> None:
    code, out, err = call(noise, "prove", "noise:noisy", "--schedule", "clean crash@999")
    assert (code, out) == (2, "")
    assert "error: The schedule 'clean crash@999' is of another scenario" in err
    assert "noise" not in err


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize("name", ["sale", "hasty", "made_of_nothing"])
def test_streams_and_logging_are_afterwards_as_before(cli: Cli, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", 3)
    before = (sys.stdout, sys.stderr)
    cli("prove", f"proofs:{name}", "--budget", "5")
    assert (sys.stdout, sys.stderr) == before
    assert logging.root.manager.disable == 3


def test_on_a_terminal_progress_is_one_line_that_goes_away(proofs: Path) -> None:
    screen = Screen(proofs, "prove", "proofs:sale", "--budget", "400")
    assert screen.end() == 0
    assert "\x1b[32mSale: 408 schedules were run, and all held (" in screen.shown
    told = re.findall(r"([\d,]+) of ([\d,]+) schedules, [\d,]+ a second\r +\r", screen.shown)
    assert told
    assert screen.shown.count("\n") == screen.shown.partition("Sale: ")[2].count("\n")
    screen = Screen(proofs, "prove", "proofs:hasty")
    assert screen.end() == 1
    assert "\x1b[31m      CRASH, in step 'charge', after Till.charge_the_card_of()" in screen.shown
    assert "\x1b[31m  the world shows  charges is [50, 50]\x1b[0m" in screen.shown
    assert "\x1b[2m  process 1: execute()\x1b[0m" in screen.shown


def test_ctrl_c_ends_it(proofs: Path) -> None:
    screen = Screen(proofs, "prove", "proofs:long")
    screen.until("schedules, ")
    screen.type("\x03")
    assert screen.end() == 130
    assert "Interrupted." in screen.shown
    assert "Traceback" not in screen.shown


def test_in_a_pipe_there_is_no_progress(proofs: Path) -> None:
    code, out, err = call(proofs, "prove", "proofs:sale", "--budget", "100")
    assert (code, err) == (0, "")
    assert out.startswith("Sale: 108 schedules were run, and all held (")
