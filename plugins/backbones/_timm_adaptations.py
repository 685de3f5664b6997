"""What timm does to weights of other channels or of another image size, told in our words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from timm.models import PretrainedCfg
from torch import Tensor

from transferbench.errors import DataError, listing

__all__ = ["changed_shapes", "changes_of_tag", "channel_fault", "libraries_silent"]

LOGGERS = ("timm", "huggingface_hub")
NOT_CONVERTED = "Unable to convert pretrained"
"""How timm says that a layer of the weights is left out, and random instead."""
LISTED = 4


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def libraries_silent() -> Iterator[None]:
    """A block in which the log of timm and the hub's client does not reach the terminal.

    Raises: ``DataError`` where timm left out a layer of the weights, which only its log says.
    """
    records, loggers = _Records(), [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [records], False
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
    for message in records.messages:
        if message.startswith(NOT_CONVERTED):
            layer = message.removeprefix(NOT_CONVERTED).split()[0]
            raise DataError(f"timm cannot convert {layer} to the channels of the images")


def changed_shapes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Remarks on the tensors of a file that have another shape in the network."""
    remarks, resized = [], []
    for name, tensor in before.items():
        old, new = tuple(tensor.shape), tuple(after[name].shape) if name in after else ()
        if new and len(old) == len(new) == 4 and old[1] != new[1]:
            remarks.append(_converted(name, old[1], new[1]))
        elif new and old != new:
            resized.append(f"{name} from {old} to {new}")
    return [*remarks, *([f"resized {listing(resized, LISTED)}"] if resized else [])]


def _converted(name: str, old: int, new: int) -> str:
    how = "summed over them" if new == 1 else "repeated and scaled"
    return f"converted {name} from {old} input channels to {new}, its kernels {how}"


def changes_of_tag(config: PretrainedCfg, arguments: Mapping[str, Any]) -> list[str]:
    """Remarks on what timm does to the weights of a tag for a network with these arguments."""
    channels, size, _ = config.input_size
    own_channels, own_size = arguments["in_chans"], arguments.get("img_size", size)
    remarks = []
    if own_channels != channels:
        remarks = [_converted(name, channels, own_channels) for name in _first_layers(config)]
    if own_size != size:
        remarks.append(f"resized what depends on the image size, from {size} px to {own_size}")
    return remarks


def channel_fault(
    config: PretrainedCfg, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """Why weights of other channels do not fit, and what to do; None where that is not why."""
    for name in _first_layers(config):
        if name in state and name in own:
            channels, expected = state[name].shape[1], own[name].shape[1]
            if channels != expected:
                reason = f"{name} reads {channels} channel(s), and the images have {expected}"
                advice = (
                    f"give weights of images of {expected} channel(s), or set image.channels of the"
                    f" suite to {channels}, with as many values of mean and std"
                )
                return reason, advice
    return None


def _first_layers(config: PretrainedCfg) -> list[str]:
    names = config.first_conv or ()
    return [f"{name}.weight" for name in ((names,) if isinstance(names, str) else names)]
