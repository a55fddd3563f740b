"""Embeddings on an object store that fails."""

import uuid
from typing import Any

import pytest

from engine.errors import InputError
from engine.pool.embedding_files import index_embeddings
from engine.storage.location import Location, _remote_filesystem
from tests.engine.pool.test_embedding_files import random_rows, table
from tests.faults.proxy import Plan, faulty_proxy
from tests.servers import s3_server


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["slow_down", "cut", "reset", "denied"])
def test_a_store_that_fails_for_a_while_is_asked_again_and_one_that_refuses_is_named(kind: Any) -> None:
    rows, bucket = random_rows(3), uuid.uuid4().hex
    plan = Plan(kinds=(kind,), share=1, methods=("GET",), in_a_row=3, at_most=None if kind == "denied" else 3)
    with (
        s3_server(bucket) as direct,
        faulty_proxy(direct["AWS_ENDPOINT_URL"], plan) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in direct.items():
            patch.setenv(name, value)
        Location.of(f"s3://{bucket}/a.parquet").write_table(table(rows))
        _remote_filesystem.cache_clear()
        patch.setenv("AWS_ENDPOINT_URL", url)
        if kind == "denied":
            with pytest.raises(InputError, match=r"a\.parquet: cannot be .*ACCESS_DENIED"):
                index_embeddings(f"s3://{bucket}/a.parquet")
            return
        found = index_embeddings(f"s3://{bucket}/a.parquet").vectors_of("s1.tar")
    assert plan.injected[kind] > 0
    assert [found.of(key).tolist() for key in found.rows] == [v.tolist() for s, _, v in rows if s == "s1.tar"]
