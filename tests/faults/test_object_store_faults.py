"""Pool and campaign on S3, reached through a proxy that fails as S3 and networks do."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from tests.faults import law
from tests.faults.campaigns import Pool, make_campaign
from tests.faults.conftest import Reference
from tests.faults.driver import Ended, run
from tests.faults.proxy import Fault, Plan, faulty_proxy
from tests.servers import s3_server

LOG = logging.getLogger(__name__)
POOL, CAMPAIGN = "/*/pool/", "/*/campaign/"
"""What comes through the proxy of the pool and of the campaign, in whatever bucket."""
MOST_RUNS = 5


class Store(NamedTuple):
    """A campaign that waits to be scored, and the variables that lead to it past the proxy and through it."""

    client: Any
    bucket: str
    campaign: str
    direct: dict[str, str]
    faulty: dict[str, str]


@contextmanager
def store(pool: Pool, trained: str, plan: Plan) -> Iterator[Store]:
    """The pool and a copy of the campaign on S3. The plan holds for what comes through the proxy only."""
    # The server forgets nothing from one test to the next.
    bucket = uuid.uuid4().hex
    with s3_server(bucket) as direct, faulty_proxy(direct["AWS_ENDPOINT_URL"], plan) as url:
        client = boto3.client(
            "s3", endpoint_url=direct["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="key", aws_secret_access_key="secret",
        )  # fmt: skip
        for shard in pool.shards:
            client.upload_file(str(shard), bucket, f"pool/{shard.name}")
        home = make_campaign(f"s3://{bucket}/campaign", f"s3://{bucket}/pool/*.tar", pool.labels, **direct)
        for file in Path(trained, "rounds/000/train").rglob("*.*"):
            client.upload_file(str(file), bucket, f"campaign/{file.relative_to(trained)}")
        yield Store(client, bucket, home, direct, {**direct, "AWS_ENDPOINT_URL": url})


def fetch(made: Store, home: Path) -> str:
    """A local copy of the campaign's folder, fetched past the proxy."""
    pages = made.client.get_paginator("list_objects_v2").paginate(Bucket=made.bucket, Prefix="campaign/")
    for entry in (entry for page in pages for entry in page["Contents"]):
        file = home / entry["Key"].removeprefix("campaign/")
        file.parent.mkdir(parents=True, exist_ok=True)
        made.client.download_file(made.bucket, entry["Key"], str(file))
    return str(home)


def run_until_done(made: Store, folder: Path) -> list[Ended]:
    """At most five runs; each that fails says in a line why, and leaves nothing half-written."""
    runs = []
    for number in range(MOST_RUNS):
        runs.append(run("score", made.campaign, **made.faulty))
        law.assert_nothing_half_written(fetch(made, folder / str(number)))
        if runs[-1].status == 0:
            break
        runs[-1].one_error()
    return runs


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("paths", [(POOL,), (CAMPAIGN,), (POOL, CAMPAIGN)], ids=["pool", "campaign", "both"])
def test_a_store_that_fails_now_and_then(
    reference: Reference, fault_pool: Pool, tmp_path: Path, share: float, paths: tuple[str, ...]
) -> None:
    plan = Plan(prefixes=paths, share=share, seed=int(share * 10))
    with store(fault_pool, reference.trained, plan) as made:
        runs = run_until_done(made, tmp_path)
        reported = [f"{ended.status}: {ended.errors.strip().splitlines()[-1:]}" for ended in runs]
        LOG.info("%s requests, %s, %s runs: %s", plan.requests, dict(plan.injected), len(runs), reported)
        assert plan.injected.total() > 10
        assert runs[-1].status == 0, reported
        law.assert_law_4(fetch(made, tmp_path / "last"), reference.rows, exactly=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["slow_down", "cut", "reset"])
def test_shards_that_fail_for_longer_than_the_client_is_patient(
    reference: Reference, fault_pool: Pool, tmp_path: Path, kind: Fault
) -> None:
    plan = Plan(prefixes=(POOL,), kinds=(kind,), methods=("GET",), share=0.1, in_a_row=40, at_most=120)
    with store(fault_pool, reference.trained, plan) as made:
        runs = run_until_done(made, tmp_path)
        reported = [f"{ended.status}: {ended.errors.strip().splitlines()[-1:]}" for ended in runs]
        LOG.info("%s requests, %s, %s runs: %s", plan.requests, dict(plan.injected), len(runs), reported)
        assert plan.injected[kind] > 10
        assert runs[-1].status == 0, reported
        law.assert_law_4(fetch(made, tmp_path / "last"), reference.rows, exactly=True)


@pytest.mark.slow
def test_a_store_that_fails_once_for_each_shard_costs_no_second_run(
    reference: Reference, fault_pool: Pool, tmp_path: Path
) -> None:
    plan = Plan(prefixes=(POOL,), kinds=("cut",), methods=("GET",), share=0.3, at_most=len(fault_pool.shards))
    with store(fault_pool, reference.trained, plan) as made:
        ended = run("score", made.campaign, **made.faulty)
        assert plan.injected["cut"] > 5
        assert ended.status == 0, ended.errors
        law.assert_law_4(fetch(made, tmp_path / "last"), reference.rows, exactly=True)


@pytest.mark.slow
def test_a_store_that_may_not_be_written_to_is_named(reference: Reference, fault_pool: Pool, tmp_path: Path) -> None:
    plan = Plan(prefixes=(CAMPAIGN,), kinds=("denied",), methods=("PUT", "POST"), share=1.0)
    with store(fault_pool, reference.trained, plan) as made:
        error = run("score", made.campaign, **made.faulty).one_error()
        assert plan.injected["denied"]
        assert made.campaign in error
        assert "cannot be written" in error
        assert law.num_committed(fetch(made, tmp_path / "refused")) == 0
        ended = run("score", made.campaign, **made.direct)
        assert ended.status == 0, ended.errors
        law.assert_law_4(fetch(made, tmp_path / "last"), reference.rows, exactly=True)
