"""The user's task learner has the weights that were named, or says why not; nothing is ever unpickled."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.models import task_source
from engine.models.task_models import load_task
from engine.models.task_source import known_weights, task_inputs, weights_of_task
from tests.tasks import Plain
from vaal.network_trial import noise_pixels

MORE = r"give a model with an output for each class \(--set task.arguments=..., task.weights=...\)"


def config(model: str = "Plain", **options: Any) -> CampaignConfig:
    """A configuration with a task learner of `tests.tasks`; options are those of the section, or dotted keys."""
    named = {key if "." in key else f"task.{key}": value for key, value in options.items()}
    place = model if ":" in model else f"tests.tasks:{model}"
    return override(CampaignConfig(), {"image.size": 8, "task.model": place, **named}, "test")


def saved(folder: Path, seed: int, change: Any = None) -> str:
    torch.manual_seed(seed)
    state = Plain().state_dict()
    if change is not None:
        change(state)
    safetensors.torch.save_file(state, folder / f"{seed}.safetensors")
    return str(folder / f"{seed}.safetensors")


def logits(loaded: Any, network: int = 0) -> torch.Tensor:
    x = loaded.preprocessing(noise_pixels(8, 3))
    part = loaded.task.networks[network]
    found: torch.Tensor = part.head(part.features(x))
    return found


def test_it_has_the_weights_that_were_named_and_stays_frozen(tmp_path: Path) -> None:
    url = saved(tmp_path, 7)
    loaded = load_task(config(weights=url, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0], order="bgr"), "cpu")
    torch.manual_seed(7)
    network, x = Plain(), noise_pixels(8, 3).flip(-1).double() / 255
    x = ((x - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.25, 1.0])).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(logits(loaded), network.head(network.features(x)).detach(), rtol=1e-5, atol=1e-5)
    assert (loaded.num_classes, loaded.task.kind, loaded.task.unit_C) == (5, "classes", (0.5, 0.25, 1.0))
    assert not any(part.training for part in loaded.task.modules())
    assert not any(weight.requires_grad for weight in loaded.task.parameters())


def test_several_weights_are_members_and_the_first_is_t(tmp_path: Path) -> None:
    urls = [saved(tmp_path, seed) for seed in (1, 2, 3)]
    loaded = load_task(config(weights=urls), "cpu")
    alone = [load_task(config(weights=url), "cpu") for url in urls]
    assert len(loaded.task.networks) == 3
    for number, one in enumerate(alone):
        assert torch.equal(logits(loaded, number), logits(one))
    assert loaded.sha256 == [one.sha256[0] for one in alone]
    load_task(config(weights=urls), "cpu", loaded.sha256)
    with pytest.raises(InputError, match=r"2.safetensors: not the weights that were used before"):
        load_task(config(weights=urls), "cpu", [loaded.sha256[0], "0" * 64, ""])
    with pytest.raises(ConfigError, match=r"task.weights: .*/1.safetensors and .*/1.safetensors are the same"):
        load_task(config(weights=[*urls, urls[0]]), "cpu")
    with pytest.raises(ConfigError, match="returns one network for all members; make one at each call"):
        load_task(config("one_network", weights=urls), "cpu")


def test_without_weights_those_of_the_factory_are_known_again_and_no_other_stream_is_drawn_from() -> None:
    torch.manual_seed(3)
    first, drawn = load_task(config(), "cpu"), torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(logits(load_task(config(), "cpu", first.sha256)), logits(first))
    with pytest.raises(
        InputError, match=r"gives other weights than before; restore them, or name a file in task.weights"
    ):
        load_task(config(), "cpu", ["0" * 64])


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            "no_such_package:x",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'; install no_such_package here, "
            "run in the folder that it is in, or correct the name",
        ),
        (
            "tests.no_such_module:x",
            "cannot be imported: ModuleNotFoundError: No module named 'tests.no_such_module'; g",
        ),
        ("Nothing", "cannot be imported: AttributeError"),
        ("ends_the_process", "fails with task.arguments={}: SystemExit: 0"),
        ("failing_factory", "fails with task.arguments={}: KeyError: 'why"),
        ("no_network", "returns str, not a torch.nn.Module"),
        ("Softmax", "returns probabilities, not logits"),
        ("Headless", "Headless has no head"),
    ],
)
def test_a_factory_that_makes_no_task_learner_is_refused_in_one_line(model: str, text: str) -> None:
    wanted = config(model)
    with pytest.raises(ConfigError) as refused:
        load_task(wanted, "cpu")
    assert str(refused.value).startswith(f"task.model={wanted.task.model}: {text}")
    assert "\n" not in str(refused.value)


def test_weights_that_do_not_fit_are_named_with_the_first_three(tmp_path: Path) -> None:
    def renamed(state: dict[str, torch.Tensor]) -> None:
        for name in [*state]:
            state[f"x{name}"] = state.pop(name)

    with pytest.raises(InputError) as refused:
        load_task(config(weights=saved(tmp_path, 1, renamed)), "cpu")
    missing = "4 missing (mix.0.weight, mix.0.bias, head.weight and 1 more)"
    unexpected = "4 unexpected (xhead.bias, xhead.weight, xmix.0.bias and 1 more)"
    assert str(refused.value).endswith(f"not the weights of task.model=tests.tasks:Plain: {missing}; {unexpected}")
    with pytest.raises(InputError, match=r"2 other shapes \(head.weight is \(5, 6\), not \(3, 6\), head.bias"):
        load_task(config(weights=saved(tmp_path, 2), arguments={"num_classes": 3}), "cpu")

    def infinite(state: dict[str, torch.Tensor]) -> None:
        state["head.bias"][1] = torch.inf

    with pytest.raises(InputError, match=r"3.safetensors: head.bias has numbers that are not finite; name other"):
        load_task(config(weights=saved(tmp_path, 3, infinite)), "cpu")


@pytest.mark.parametrize("prefix", ["module.", "net.", "_orig_mod.", "module._orig_mod."])
def test_names_that_differ_by_a_prefix_alone_are_said_to_with_the_line_that_fixes_them(
    tmp_path: Path, prefix: str
) -> None:
    def wrapped(state: dict[str, torch.Tensor]) -> None:
        for name in [*state]:
            state[f"{prefix}{name}"] = state.pop(name)
        state["loss.weight"] = torch.ones(1)

    file = saved(tmp_path, 1, wrapped)
    with pytest.raises(InputError) as refused:
        load_task(config(weights=file), "cpu")
    assert f"the names in the file begin with '{prefix}', and those of the network do not" in str(refused.value)
    # What it advises is what helps.
    line = str(refused.value).partition("and name that file: ")[2]
    place = tmp_path / "renamed.safetensors"
    exec(line.replace("'renamed.safetensors'", repr(str(place))), {})
    load_task(config(weights=str(place)), "cpu")


def test_a_network_that_is_wrapped_says_so_of_plain_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names of the network begin with .inner\.., and those in the file do not"):
        load_task(config("Wrapped", weights=saved(tmp_path, 1)), "cpu")


@pytest.mark.parametrize("suffix", ["pt2", "pt", "pth", "bin", "pkl", "onnx", "PT"])
def test_a_pickle_is_refused_before_it_is_read(suffix: str) -> None:
    for value in (f"/nowhere/t.{suffix}", ["/nowhere/a.safetensors", f"s3://b/t.{suffix}?versionId=3"]):
        with pytest.raises(
            ConfigError, match=r"only safetensors are read.*safetensors.torch.save_file\(model.state_dict"
        ):
            config(weights=value)
    with pytest.raises(ConfigError, match=rf"encoder.weights=/nowhere/t.{suffix}: only safetensors are read"):
        override(CampaignConfig(), {"encoder.weights": f"/nowhere/t.{suffix}"}, "test")


def test_a_pickle_under_another_name_runs_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.write_text, (tmp_path / "ran", "yes")

    torch.save({"head.weight": Bomb()}, tmp_path / "t.safetensors")
    with pytest.raises(InputError, match=r"t.safetensors: not a whole safetensors file"):
        load_task(config(weights=str(tmp_path / "t.safetensors")), "cpu")
    assert not (tmp_path / "ran").exists()


def test_what_a_score_needs_and_the_model_lacks_is_named() -> None:
    score = {"score.acquisition": ["vaal", "expected_gradient_length"]}
    load_task(config(**score), "cpu")
    with pytest.raises(
        ConfigError, match=r"score.acquisition=expected_gradient_length needs a head that is one linear"
    ):
        load_task(config("TwoLayers", **score), "cpu")
    load_task(config("WithoutGradient"), "cpu")
    with pytest.raises(ConfigError, match="gives no gradient"):
        load_task(config("WithoutGradient", **{"score.acquisition": ["vaal", "margin_drop"]}), "cpu")
    drawn = {"score.acquisition": ["vaal", "bald"], "score.dropout": "network"}
    load_task(config(arguments={"drop": 0.5}, **drawn), "cpu")
    load_task(config("UnusedDropout", **{"score.acquisition": ["vaal", "bald"]}), "cpu")
    with pytest.raises(ConfigError, match="cannot be drawn by its dropout"):
        load_task(config("UnusedDropout", **drawn), "cpu")


def test_the_names_of_task_classes_are_as_many_as_its_outputs() -> None:
    with pytest.raises(ConfigError, match=r"has 5 outputs, task.classes names 2; name each output, in order$"):
        load_task(config(classes=["a", "b"]), "cpu")
    # More names make no more outputs.
    with pytest.raises(
        ConfigError, match=f"has 5 outputs, task.classes names 6; name each output, in order, or {MORE}"
    ):
        load_task(config(classes=[*"abcdef"]), "cpu")
    with pytest.raises(ConfigError, match=r"task.classes names a twice"):
        config(classes=["a", "b", "a"])


def test_the_options_that_decide_its_scores_are_in_its_inputs() -> None:
    assert task_inputs(CampaignConfig()) == {}
    before = task_inputs(config())
    others: list[dict[str, Any]] = [
        {"model": "resnet18"}, {"arguments": {"num_classes": 3}}, {"weights": "a.safetensors"}, {"size": 16},
        {"mean": [0.4]}, {"std": [0.4]}, {"order": "bgr"}, {"classes": [*"abcde"]},
        {"train.task": "labels", "handoff.question.task": "classes"},
    ]  # fmt: skip
    found = [task_inputs(config(**options)) for options in others]
    assert all(inputs != before for inputs in found)


def test_the_weights_are_among_the_inputs_of_scores_and_are_found_there() -> None:
    wanted = config(weights=["a.safetensors", "b.safetensors"])
    found = weights_of_task({"weights_sha256": ["aa", "bb"]})
    assert all(name.endswith(".safetensors") for name in found)
    assert known_weights(wanted, {"vae.safetensors": "cc", **found}) == ["aa", "bb"]
    assert known_weights(wanted, {}) == ["", ""]
    assert weights_of_task({"classes": ["a"]}) == {}
    # So is what it makes of some images.
    probed = [weights_of_task({"weights_sha256": ["aa"], "probe": [[number]]}) for number in (1.0, 2.0)]
    assert probed[0] != probed[1]
    assert task_source.TASK_MODEL not in found
