"""Mutation testing itself: that it notices what it must, and that its list of survivors is about the code at hand."""

import re
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from dotmac_workflows import result
from mutation import survivors

SOURCE = Path(result.__file__).parent
TOP = Path(__file__).parents[1]


def without_indentation(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize("survivor", survivors.listed(), ids=lambda survivor: f"{survivor.module}:{survivor.function}")
def test_a_listed_survivor_is_about_the_code_at_hand(survivor: survivors.Survivor) -> None:
    code = without_indentation((SOURCE / survivor.module).read_text(encoding="utf-8"))
    changed = without_indentation(survivor.before)
    assert any(code[at : at + len(changed)] == changed for at in range(len(code))), "it is gone: take it off the list"
    assert survivor.after != survivor.before
    assert survivor.why.strip()


PLANTED = """
import sys
from functools import partial
from pathlib import Path
from mutation import making_none
"""


def changed(module: str, before: str, after: str) -> str:
    text = (SOURCE / module).read_text(encoding="utf-8")
    assert text.count(before) == 1
    return text.replace(before, after)
