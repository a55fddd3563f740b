"""Object stores on this machine, over HTTP."""

import contextlib
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from engine.storage.location import _remote_filesystem


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, str]]:
    """An S3 server with one bucket. Yields the environment variables that lead a client there."""
    # This process may know a bucket of the same name on a server that is no more.
    _remote_filesystem.cache_clear()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_bucket(Bucket=bucket)
    try:
        yield environment
    finally:
        server.stop()


@contextmanager
def gcs_server(bucket: str) -> Iterator[dict[str, str]]:
    """A Google Cloud Storage emulator with one bucket; as `s3_server`."""
    port = free_port()
    with contextlib.redirect_stderr(io.StringIO()):
        server = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
        server.start()
    try:
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    finally:
        server.stop()
