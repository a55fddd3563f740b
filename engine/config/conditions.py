"""Conditions on columns, as `select.where` has them: the comparisons of SQL's WHERE, and nothing else of it.

sqlglot reads the text; what it finds is looked at here node by node, and never executed.
"""

import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, NoReturn

from engine.errors import ConfigError, one_line

EXAMPLE = "licence in ('cc0', 'cc-by') and year >= 2020 and camera is not null"
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "GT": operator.gt,
    "GTE": operator.ge,
    "LT": operator.lt,
    "LTE": operator.le,
}
_PARTS = {"this", "expression", "expressions", "low", "high", "negate"}
_MIRRORED = {"GT": "LT", "GTE": "LTE", "LT": "GT", "LTE": "GTE"}


class Leaf(NamedTuple):
    """A comparison of a column with constants of one kind: `holds(value)` says whether it does, of a value of that
    kind. `kind` is text, number, date, time or truth; of "null" only whether there is a value is asked."""

    column: str
    kind: str
    holds: Callable[[Any], bool]


class Joined(NamedTuple):
    """Conditions that are joined by "and" or "or"; or one that is turned round by "not"."""

    how: str
    parts: "tuple[Condition, ...]"


Condition = Leaf | Joined


def condition_of(text: str) -> Condition:
    """The condition that a text says. Raises ConfigError for one that is none, or says more than comparisons."""
    try:
        return _parsed(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def fault_of_condition(text: str) -> str:
    """Why a text is no condition; empty where it is one."""
    try:
        _parsed(text)
    except ValueError as error:
        return str(error)
    return ""


def _parsed(text: str) -> Condition:
    """As `condition_of`. Raises ValueError."""
    # A third of a second, which most campaigns need not wait.
    import sqlglot
    from sqlglot import exp

    try:
        return _condition(sqlglot.parse_one(text, into=exp.Condition))
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        faults = getattr(error, "errors", None) or [{"description": one_line(error)}]
        at = f" at {faults[0]['highlight']!r}" if faults[0].get("highlight") else ""
        why = f"cannot be read{at}: {re.sub(r'<class .*', 'a value', faults[0]['description'])}"
        raise ValueError(f"select.where={text}: {why}; write it like: {EXAMPLE}") from error
    except ValueError as error:
        raise ValueError(f"select.where={text}: {error}; write it like: {EXAMPLE}") from error


def columns_in(condition: Condition) -> Iterator[str]:
    """The names of all columns of a condition."""
    if isinstance(condition, Leaf):
        yield condition.column
    else:
        for part in condition.parts:
            yield from columns_in(part)


def value_of(text: str, kind: str) -> Any:
    """The value of a cell, to be compared with constants of this kind. Raises ValueError if it is none of it."""
    if kind == "number":
        return float(text)
    if kind == "truth":
        word = text.strip().lower()
        return word == "true" if word in ("true", "false") else _refuse(f"{text!r} is neither true nor false")
    if kind in ("date", "time"):
        found = datetime.fromisoformat(text.strip())
        found = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
        return found.date() if kind == "date" else found
    return text


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _condition(node: Any) -> Condition:
    name = type(node).__name__
    # What a part of the tree says beside these would be passed over.
    if unknown := {key for key, value in node.args.items() if value} - _PARTS:
        return _refuse(f"{node.sql()!r} says more than a comparison ({min(unknown)})")
    if node.args.get("negate"):
        node.set("negate", False)
        return Joined("not", (_condition(node),))
    if name == "Paren":
        return _condition(node.this)
    if name in ("And", "Or"):
        return Joined(name.lower(), (_condition(node.this), _condition(node.expression)))
    if name == "Not":
        return Joined("not", (_condition(node.this),))
    made = {"Is": _is, "In": _in, "Between": _between, "Like": _like}.get(name, _compared)
    return made(node)


def _column(node: Any) -> str:
    if type(node).__name__ == "Column" and not node.args.get("table"):
        return str(node.name)
    if type(node).__name__ == "Column":
        return _refuse(
            f"{node.sql()} has a point; put the name of a column in double quotes, and a text in single ones"
        )
    return _refuse(f"{node.sql()!r} is not a column")


def _constant(node: Any) -> tuple[str, Any]:
    """The kind and the value of a constant."""
    name = type(node).__name__
    if name == "Literal":
        return ("text", str(node.this)) if node.is_string else ("number", float(node.this))
    if name == "Neg" and type(node.this).__name__ == "Literal" and not node.this.is_string:
        return "number", -float(node.this.this)
    if name == "Boolean":
        return "truth", bool(node.this)
    if name == "Cast" and type(node.this).__name__ == "Literal" and node.this.is_string:
        kind = {"DATE": "date", "TIMESTAMP": "time", "DATETIME": "time"}.get(node.to.this.name, "")
        if kind:
            return kind, _moment(str(node.this.this), kind)
    if name == "Column":
        return _refuse(f"{node.sql()} is no constant; put a text in single quotes: '{node.name}'")
    return _refuse(f"{node.sql()!r} is not a text, a number, true, false, or a date like date '2024-01-31'")


def _moment(text: str, kind: str) -> date | datetime:
    try:
        found: date | datetime = value_of(text, kind)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a {kind} like 2024-01-31") from error
    return found


def _compared(node: Any) -> Leaf:
    name = type(node).__name__
    if name not in _OPERATORS:
        return _refuse(f"{node.sql()!r} is no comparison; there are =, <>, <, <=, >, >=, in, between, like, is null")
    column, constant = node.this, node.expression
    if type(column).__name__ != "Column" and type(constant).__name__ == "Column":
        column, constant, name = constant, column, _MIRRORED.get(name, name)
    if type(constant).__name__ == "Null":
        return _refuse(f"{node.sql()!r} never holds; ask: {column.sql()} is null")
    named, (kind, other), compare = _column(column), _constant(constant), _OPERATORS[name]
    return Leaf(named, kind, lambda value: compare(value, other))


def _is(node: Any) -> Leaf:
    if type(node.expression).__name__ == "Null":
        return Leaf(_column(node.this), "null", lambda _value: False)
    return _refuse(f"{node.sql()!r}: 'is' is for null alone")


def _in(node: Any) -> Leaf:
    if not node.expressions:
        return _refuse(f"{node.sql()!r}: give a list, like ('a', 'b')")
    found = [_constant(one) for one in node.expressions]
    values = {value for _, value in found}
    return Leaf(_column(node.this), _one_kind(found, node), lambda value: value in values)


def _between(node: Any) -> Leaf:
    found = [_constant(node.args["low"]), _constant(node.args["high"])]
    (_, low), (_, high) = found
    return Leaf(_column(node.this), _one_kind(found, node), lambda value: low <= value <= high)


def _like(node: Any) -> Leaf:
    kind, text = _constant(node.expression)
    if kind != "text":
        return _refuse(f"{node.sql()!r}: 'like' is for texts")
    signs = {"%": ".*", "_": "."}
    pattern = re.compile("".join(signs.get(sign) or re.escape(sign) for sign in text), re.DOTALL)
    return Leaf(_column(node.this), kind, lambda value: bool(pattern.fullmatch(value)))


def _one_kind(found: list[tuple[str, Any]], node: Any) -> str:
    kinds = dict.fromkeys(kind for kind, _ in found)
    return next(iter(kinds)) if len(kinds) == 1 else _refuse(f"{node.sql()!r}: constants of different kinds")
