"""What holds for every acquisition function: one float32 a image, that depends on the image alone."""

import importlib.util
import pkgutil

import pytest
import torch

from tests.views import images, networks_of, task_of, vector_task, vectors, view_of
from vaal.acquisition import ACQUISITIONS
from vaal.network_trial import exact

KINDS = ("classes", "labels", "segmentation", "embeddings")
FUNCTIONS = [
    (name, function, kind)
    for name, row in ACQUISITIONS.items()
    for function in dict.fromkeys((row.function, row.dear))
    for kind in KINDS
    if function and kind not in row.not_for
]


def scores(name: str, function: str, kind: str, x: torch.Tensor, first: int = 0, device: str = "cpu") -> torch.Tensor:
    task = vector_task() if kind == "embeddings" else task_of(kind, num_members=2)  # type: ignore[arg-type]
    networks = networks_of(task, [name]).ready(device)
    found: torch.Tensor = pkgutil.resolve_name(function)(view_of(networks, x.to(device), first=first))
    return found


def has_no_linear_form(function: str) -> bool:
    return "network_" in function or "member_" in function or "varr" in function


def skip_where_there_is_none(function: str, kind: str) -> None:
    assert importlib.util.find_spec(function.partition(":")[0]), f"no module for {function}"
    if kind == "embeddings" and has_no_linear_form(function):
        pytest.skip("a linear head has no dropout and no members")


@pytest.mark.parametrize(("name", "function", "kind"), FUNCTIONS)
def test_a_score_depends_on_the_image_alone(name: str, function: str, kind: str) -> None:
    skip_where_there_is_none(function, kind)
    x = vectors(7) if kind == "embeddings" else images(7)
    together = scores(name, function, kind, x)
    assert together.shape == (7,)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    assert torch.isfinite(together).all()
    assert len(together.unique()) > 1
    alone = torch.cat([scores(name, function, kind, x[n : n + 1], first=n) for n in range(7)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    pair = scores(name, function, kind, x[2:4], first=2)
    torch.testing.assert_close(pair, together[2:4], rtol=1e-4, atol=1e-5)
    # Again, in another process or on another machine: random numbers come from the seed alone.
    torch.manual_seed(99)
    torch.testing.assert_close(scores(name, function, kind, x), together, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_score_on_a_gpu_is_that_of_a_cpu(kind: str) -> None:
    x = vectors(7) if kind == "embeddings" else images(7)
    for name, function, of in FUNCTIONS:
        if of != kind or (kind == "embeddings" and has_no_linear_form(function)):
            continue
        with exact(torch.device("cuda")):
            found = scores(name, function, kind, x, device="cuda")
        assert found.device.type == "cuda", name
        expected = scores(name, function, kind, x)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
