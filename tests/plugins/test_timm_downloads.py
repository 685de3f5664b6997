"""Tags of timm: cached weights need no network, and without one the answer comes at once."""

from __future__ import annotations

import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from transferbench.errors import DataError
from transferbench_plugins.backbones import transferbench_backbones

TIMM = next(spec for spec in transferbench_backbones() if spec.name == "timm")
PARAMS = TIMM.parse({"model": "test_resnet"})
CLOSED = "http://127.0.0.1:9"
"""No server listens on the port of the discard protocol."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, whose server does not answer."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", CLOSED)
    return tmp_path


def network(channels: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return TIMM.build(PARAMS, 1000, channels, 32)


def load(net: nn.Module, weights: str) -> str | None:
    assert TIMM.load_weights is not None
    return TIMM.load_weights(PARAMS, net, weights)


def test_weights_that_are_cached_are_loaded_without_a_network(hub):
    source = timm.create_model("test_resnet")
    folder = hub / "models--timm--test_resnet.r160_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    net = network()
    assert load(net, "r160_in1k") == ""
    assert load(network(channels=1), "r160_in1k") == (
        "converted conv1.0.weight from 3 input channels to 1, its kernels summed over them"
    )
    state = net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())
    assert constants.HF_HUB_OFFLINE is False


def test_without_a_network_the_client_does_not_try_again(hub):
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load(network(), "r160_in1k")
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert "'r160_in1k' of timm/test_resnet cannot be downloaded (127.0.0.1:9: [Errno" in message
    assert "run: hf download timm/test_resnet.r160_in1k model.safetensors; then copy" in message
    assert f"{hub}/models--timm--test_resnet.r160_in1k here, or pass the .safetensors" in message


@pytest.mark.parametrize("value", ["1", "ON", "true"])
@pytest.mark.usefixtures("hub")
def test_the_environment_refuses_the_network(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(DataError, match="the network is refused, by --offline or HF_HUB_OFFLINE"):
        load(network(), "r160_in1k")


def test_weights_of_an_address_are_named_with_it(hub, monkeypatch):
    config = timm.get_pretrained_cfg("resnet18.tv_in1k")
    assert config is not None
    monkeypatch.setattr(config, "hf_hub_id", None)
    monkeypatch.setattr(config, "url", f"{CLOSED}/weights/resnet18.pth")
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda name: config)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(hub))
    with pytest.raises(DataError) as caught:
        load(network(), "r160_in1k")
    message = str(caught.value)
    assert f"run: curl -LO {CLOSED}/weights/resnet18.pth; then copy the result to" in message
    assert f"{hub}/checkpoints/resnet18.pth here" in message
