"""Which tests start Ray, another process or a training: found in their code, so that nobody has to mark them."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from engine.cluster.ray_session import ray_session
from tests.learn import optimize

TESTS = Path(__file__).parent
STARTERS = (subprocess, ray_session, optimize)
"""Whoever names one of these starts something heavy."""


def is_heavy(item: pytest.Item) -> bool:
    """Whether the test, a fixture of it or a helper of theirs in tests/ names one of the starters."""
    fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]  # type: ignore[attr-defined]
    seen: set[Any] = set()
    return any(_reaches(function, seen) for function in (item.function, *fixtures))  # type: ignore[attr-defined]


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
        yield from (inspect.unwrap(member) for member in vars(thing).values() if callable(member))
    elif isinstance(function := inspect.unwrap(thing), FunctionType):
        for name in _names(function.__code__):
            yield function.__globals__.get(name)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
