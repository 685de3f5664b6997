"""The advice for a backbone that does not take images of the requested shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from transferbench.errors import PluginError
from transferbench.networks import fitting
from transferbench.networks.fitting import ImageRequest, advice_for
from transferbench.networks.modules import build_network
from transferbench_plugins.backbones import transferbench_backbones

ERROR = RuntimeError("the kernel is larger than the image")


class Fitting:
    """An attempt that succeeds where ``fits(size, channels)``, and records its devices."""

    def __init__(self, fits: Callable[[int, int], bool], on_meta: Exception = ERROR) -> None:
        self.fits = fits
        self.on_meta = on_meta
        self.devices: list[str] = []

    def __call__(self, request: ImageRequest, device: str) -> Exception | None:
        self.devices.append(device)
        if self.fits(request.image_size, request.in_chans):
            return None
        return self.on_meta if device == "meta" else ERROR


def advice(attempt: Fitting, size: int = 64, channels: int = 3, error: Exception = ERROR) -> str:
    return advice_for(attempt, ImageRequest(5, channels, size), error)


@pytest.mark.parametrize(
    ("fits", "size", "expected"),
    [
        (lambda size, _: size >= 75, 64, "the next larger image size that fits is 75 px"),
        (lambda size, _: size >= 300, 64, "the next larger image size that fits is 300 px"),
        (lambda size, _: size % 72 == 0, 64, "the next larger image size that fits is 72 px"),
        (lambda size, _: size % 14 == 0, 225, "the next larger image size that fits is 238 px"),
        (lambda size, _: size % 224 == 0, 64, "the next larger image size that fits is 224 px"),
        (lambda size, _: size == 224, 300, "an image size that fits is 224 px"),
        (lambda size, _: size < 33, 33, "an image size that fits is 32 px"),
    ],
)
def test_the_nearest_size_that_fits_is_named(
    fits: Callable[[int, int], bool], size: int, expected: str
) -> None:
    text = advice(Fitting(fits), size)
    assert text == f"{expected}: set image.size to it, or choose another backbone"


@pytest.mark.parametrize(("channels", "other"), [(1, 3), (3, 1), (4, 3)])
def test_another_number_of_channels_is_named(channels: int, other: int) -> None:
    text = advice(Fitting(lambda _, taken: taken == other), channels=channels)
    assert text == f"it takes images of {other} channel(s): set image.channels to {other}"


def test_without_a_size_that_fits_the_advice_is_general() -> None:
    expected = "choose another image size or other parameters, or repair the backbone"
    assert advice(Fitting(lambda *_: False)) == expected


def test_the_search_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SECONDS", 0.0)
    attempt = Fitting(lambda size, _: size >= 75)
    assert advice(attempt).startswith("choose another image size")
    assert len(attempt.devices) == 2


def test_exhausted_memory_is_not_tried_again() -> None:
    attempt = Fitting(lambda *_: True)
    text = advice(attempt, error=MemoryError())
    assert text == "memory ran out: choose a smaller image size or a smaller backbone"
    assert not attempt.devices


@pytest.mark.parametrize(
    "on_meta",
    [NotImplementedError("not on meta"), RuntimeError("item() cannot be called on meta tensors")],
)
def test_networks_that_fail_otherwise_on_the_meta_device_are_tried_on_the_cpu(
    on_meta: Exception,
) -> None:
    attempt = Fitting(lambda size, _: size >= 75, on_meta)
    assert "75 px" in advice(attempt)
    assert attempt.devices[0] == "meta"
    assert set(attempt.devices[1:]) == {"cpu"}


def test_networks_that_fail_alike_are_tried_without_memory() -> None:
    attempt = Fitting(lambda size, _: size >= 75)
    advice(attempt)
    assert set(attempt.devices) == {"meta"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "fits"), [("inception_v3", 64, 75), ("crossvit_tiny_240", 64, 72)]
)
def test_timm_models_are_refused_with_the_smallest_size_that_fits(
    monkeypatch: pytest.MonkeyPatch, model: str, size: int, fits: int
) -> None:
    monkeypatch.setattr(fitting, "SECONDS", 120.0)
    (timm,) = (spec for spec in transferbench_backbones() if spec.name == "timm")
    expected = (
        rf"backbone 'timm/{model}' cannot be built for 5 classes, 3 channel\(s\), {size} px: "
        rf"RuntimeError: .*; the next larger image size that fits is {fits} px: set image.size to"
    )
    with pytest.raises(PluginError, match=expected):
        build_network(
            timm, timm.parse({"model": model}), num_classes=5, in_chans=3, image_size=size,
            init_seed=1, head_seed=2,
        )  # fmt: skip
