"""Columns of tables."""

import pyarrow as pa


def required(kind: pa.DataType, *names: str) -> list[pa.Field]:
    """Columns of one type that hold no nulls."""
    return [pa.field(name, kind, nullable=False) for name in names]
