"""A frozen encoder gives each image its own embedding, with the weights that were named, or says why not."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from engine.config.input_options import EncoderConfig, ImageConfig
from engine.errors import ConfigError, InputError
from engine.models.adapters import _without_classes, torchvision_encoder
from engine.models.encoders import load_encoder
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from tests.encoders import Blocks, Normalised, real_encoder
from vaal.frozen_encoder import Encoder, Preprocessing, check_encoder


def config(name: str = "Blocks", **options: Any) -> EncoderConfig:
    return EncoderConfig(model=f"tests.encoders:{name}", size=8, **options)


def images(count: int = 9, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels), np.uint8))


def saved(folder: Path, state: dict[str, torch.Tensor]) -> str:
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    return str(folder / "weights.safetensors")


def test_the_embedding_is_that_of_the_network_with_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(7)
    network = Blocks(length=5)
    loaded = load_encoder(config(weights=saved(tmp_path, network.state_dict()), arguments={"length": 5}), "cpu")
    assert loaded.length == 5
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((images().double() / 255 - mean) / std).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(loaded.encoder(images()), network(x).detach(), rtol=1e-5, atol=1e-5)
    again = load_encoder(
        config(weights=saved(tmp_path, network.state_dict()), arguments={"length": 5}), "cpu", loaded.sha256
    )
    assert torch.equal(again.encoder(images()), loaded.encoder(images()))


def test_an_encoder_without_weights_is_the_same_each_time_and_draws_from_no_other_stream() -> None:
    torch.manual_seed(3)
    first, drawn = load_encoder(config(), "cpu"), torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first.encoder(images()), load_encoder(config(), "cpu").encoder(images()))


def test_preprocessing_is_by_channel_and_bgr_turns_the_channels_round() -> None:
    pixels, mean, std = images(), [0.1, 0.2, 0.3], [0.5, 0.25, 1.0]
    rgb, bgr = (Preprocessing(mean, std, is_bgr)(pixels) for is_bgr in (False, True))
    for channel in range(3):
        plain = pixels[..., channel].double() / 255
        torch.testing.assert_close(rgb[:, channel].double(), (plain - mean[channel]) / std[channel])
        place = 2 - channel
        torch.testing.assert_close(bgr[:, place].double(), (plain - mean[place]) / std[place])
    assert Preprocessing([0.5], [0.5])(images(channels=1)).shape == (9, 1, 8, 8)


def test_it_stays_frozen() -> None:
    encoder = load_encoder(config("Normalised"), "cpu").encoder
    before = encoder(images())
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert torch.equal(encoder(images()), before)


def test_an_embedding_does_not_depend_on_its_batch() -> None:
    for name in ("Blocks", "Normalised"):
        encoder = load_encoder(config(name), "cpu").encoder
        alone = torch.cat([encoder(images()[n : n + 1]) for n in range(9)])
        torch.testing.assert_close(encoder(images()), alone, rtol=1e-5, atol=1e-5)


REFUSED = {
    "no_such_package:x": "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
    "tests.encoders:Nothing": "cannot be imported: AttributeError",
    "tests.encoders:failing_factory": "fails with encoder.arguments={}: KeyError: 'why",
    "tests.encoders:no_network": "returns str, not a torch.nn.Module",
    "tests.encoders:SIZE": "fails with encoder.arguments={}: TypeError: 'int' object is not callable",
    "tests.encoders:Maps": "returns (7, 3, 8, 8) of float32 for 7 images, not (batch, components) of floats",
    "tests.encoders:Pairs": "returns tuple, not one tensor (batch, components)",
    "tests.encoders:Mixing": "mixes the images of a batch, or draws at random: seven at once differ",
    "tests.encoders:Drawing": "mixes the images of a batch, or draws at random: seven at once differ",
    "tests.encoders:Constant": "returns the same embedding for all images",
    "tests.encoders:Infinite": "returns components that are not finite",
    "tests.encoders:Failing": "fails on images (7, 3, 8, 8): no way",
}


@pytest.mark.parametrize("model", REFUSED)
def test_another_network_is_refused_in_one_line(model: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_encoder(EncoderConfig(model=model, size=8), "cpu")
    assert str(refused.value).startswith(f"encoder.model={model}: ")
    assert REFUSED[model] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"fails with encoder.arguments=\{'colour': 1\}: TypeError: .*colour"):
        load_encoder(config(arguments={"colour": 1}), "cpu")


def test_a_network_in_training_mode_would_mix_and_is_not_left_in_it() -> None:
    encoder = Encoder(Normalised(), Preprocessing([0.5] * 3, [0.5] * 3))
    assert check_encoder(encoder, 8) == 8


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.pop("mix.bias"), r"1 missing \(mix.bias\)"),
        (lambda state: state.update(more=torch.ones(1)), r"1 unexpected \(more\)"),
        (
            lambda state: state.update({"mix.bias": torch.ones(3)}),
            r"1 other shapes \(mix.bias is \(3,\), not \(6,\)\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Any, text: str) -> None:
    state = Blocks().state_dict()
    change(state)
    with pytest.raises(InputError, match=rf"weights.safetensors: not the weights of .*Blocks: {text}"):
        load_encoder(config(weights=saved(tmp_path, state)), "cpu")


def test_weights_that_are_missing_damaged_or_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.safetensors: cannot be read"):
        load_encoder(config(weights=f"{tmp_path}/none.safetensors"), "cpu")
    path = saved(tmp_path, Blocks().state_dict())
    sha256 = load_encoder(config(weights=path), "cpu").sha256
    load_encoder(config(weights=path), "cpu", sha256)
    saved(tmp_path, Blocks().state_dict())
    with pytest.raises(InputError, match=r"not the weights that were used before"):
        load_encoder(config(weights=path), "cpu", sha256)
    Path(path).write_bytes(Path(path).read_bytes()[:-4])
    with pytest.raises(InputError, match=r"not a whole safetensors file"):
        load_encoder(config(weights=path), "cpu")


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_load_their_own_weights(tmp_path: Path, name: str) -> None:
    from torchvision import models

    original = models.get_model(name, weights=None).eval()
    path = saved(tmp_path, original.state_dict())
    settings = EncoderConfig(
        model="engine.models.adapters:torchvision_encoder", arguments={"name": name}, weights=path, size=64
    )
    loaded = load_encoder(settings, "cpu")
    # What goes into the last layer: its own weights make the classes of it.
    last = [part for part in original.modules() if isinstance(part, nn.Linear)][-1]
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = original(loaded.encoder.preprocessing(pixels))
        found = last(loaded.encoder(pixels).clone())
    assert loaded.length == last.in_features
    torch.testing.assert_close(found, expected)


def test_a_network_without_a_last_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="torchvision's squeezenet1_1 has no linear layer"):
        torchvision_encoder("squeezenet1_1")
    with pytest.raises(ConfigError, match="x has no linear layer at its end"):
        _without_classes(nn.Conv2d(1, 1, 1), "x")


def test_without_timm_its_adapter_says_so() -> None:
    try:
        import timm
    except ImportError:
        with pytest.raises(ConfigError, match="needs timm: pip install"):
            load_encoder(EncoderConfig(model="engine.models.adapters:timm_encoder", arguments={"name": "x"}), "cpu")
        return
    settings = EncoderConfig(model="engine.models.adapters:timm_encoder", arguments={"name": "resnet10t"}, size=64)
    assert load_encoder(settings, "cpu").length == timm.create_model("resnet10t").num_features


@pytest.mark.heavy
def test_a_real_encoder_tells_classes_apart_far_above_chance(tmp_path: Path) -> None:
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data")) / "cifar10"
    if not data.exists():
        pytest.skip("no cifar10 below VAAL_DATA or ../shared/data")
    settings = real_encoder(tmp_path)
    loaded = load_encoder(settings, "cpu")
    assert loaded.length == 1280
    (shard,) = list_shards([str(data / "train-00000.tar")], "")[0]
    image = ImageConfig(size=settings.size, channels=3)
    items = [item for item, _ in zip(read_shard(shard, image), range(400), strict=False)]
    oracle = pq.read_table(data / "train-oracle.parquet", filters=[("shard", "=", shard.shard)])
    labels = dict(zip(oracle["key"].to_pylist(), oracle["label"].to_pylist(), strict=True))
    classes = [labels[item.key] for item in items]
    pixels = torch.from_numpy(np.stack([decode(item.data, image) for item in items]))
    embeddings = torch.cat([loaded.encoder(part) for part in pixels.split(100)]).numpy()
    # Chance is a tenth; in the pixels themselves, a quarter.
    found = KNeighborsClassifier(5, metric="cosine").fit(embeddings[:300], classes[:300])
    assert found.score(embeddings[300:], classes[300:]) > 0.4


class _WithFeatures(nn.Module):
    """Its embedding is `features`; what it returns itself are classes."""

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.mean(dim=(2, 3))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.features(x_BCHW) @ torch.ones(3, 10)


def test_an_encoders_method_features_is_its_embedding() -> None:
    encoder = Encoder(_WithFeatures(), Preprocessing([0.0] * 3, [1.0] * 3))
    torch.testing.assert_close(encoder(images()), images().float().mean(dim=(1, 2)) / 255)


def test_without_a_file_the_weights_that_the_factory_gives_are_known_again() -> None:
    known = load_encoder(config(), "cpu").sha256
    assert load_encoder(config(), "cpu", known).sha256 == known
    with pytest.raises(InputError, match="its factory gives other weights than before"):
        load_encoder(config(), "cpu", known[::-1])
