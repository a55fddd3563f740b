"""Which tests start Ray, another process, a training or a report: found in their code; nobody need mark them."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from engine.cluster.ray_session import ray_session
from engine.report import charts
from engine.report.report import report
from tests.learn import optimize

TESTS = Path(__file__).parent
STARTERS = (subprocess, ray_session, optimize, report, charts.map_chart, charts.kl_chart, charts.histogram_chart)
"""Whoever names one of these starts something heavy."""


def is_heavy(item: pytest.Item) -> bool:
    """Whether the test, a fixture of it or a helper of theirs in tests/ names one of the starters."""
    found = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    return _reach((item.function, *(fixture.func for fixtures in found for fixture in fixtures)))  # type: ignore[attr-defined]


@cache
def _reach(functions: tuple[Any, ...]) -> bool:
    seen: set[Any] = set()
    return any(_reaches(function, seen) for function in functions)


def _reaches(thing: Any, seen: set[Any]) -> bool:
    if id(thing) in seen:
        return False
    seen.add(id(thing))
    if any(thing is starter for starter in STARTERS):
        return True
    module = sys.modules.get(getattr(thing, "__module__", ""))
    if not Path(getattr(module, "__file__", None) or "").is_relative_to(TESTS):
        return False
    return any(_reaches(found, seen) for found in _named_in(thing))


def _named_in(thing: Any) -> Iterator[Any]:
    """What the code of a function, or of a class, refers to by a global name."""
    if inspect.isclass(thing):
        yield from thing.__bases__
        yield from (inspect.unwrap(member) for member in vars(thing).values() if callable(member))
    elif isinstance(function := inspect.unwrap(thing), FunctionType):
        for name in _names(function.__code__):
            yield function.__globals__.get(name)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
