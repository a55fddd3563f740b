"""Tables whose last cell may be cut off: CSV has no mark at its end."""

from collections.abc import Iterable, Iterator

from engine.handoff.exchange import Answer, Question
from engine.tables.row_stream import LastRow, Row


def whole(rows: Iterable[tuple[Row, Answer]], column: str, question: Question) -> Iterator[Answer]:
    """The answers of a table's rows. The last one is a fault where its line has no end, the column of the label is the
    last one, and the class is neither one of the question nor of another row: `cat` may be the beginning of `cattle`.
    A question that names its classes says so by itself."""
    known = set(question.classes)
    for row, answer in rows:
        if question.is_open and question.task in ("class", "classes") and answer.value:
            names = {answer.value} if isinstance(answer.value, str) else {str(name) for name in answer.value}
            if isinstance(row, LastRow) and next(reversed(row)) == column and (new := sorted(names - known)):
                why = f"the file ends here without the end of a line, and {new[0]!r} is a class of no other row"
                yield answer._replace(fault=f"{why}; get the whole file, or end the line if it is whole")
                continue
            known |= names
        yield answer
