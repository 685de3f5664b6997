"""Weights of timm's tags on this machine: there already, or to be downloaded, or out of reach."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import PretrainedCfg

from transferbench.errors import DataError

__all__ = ["without_vain_tries"]

FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository, in this order."""
PROBE_SECONDS = 10
TRUE = ("1", "on", "yes", "true")
"""As the hub's client reads its environment variables."""


class _Source(NamedTuple):
    """Where weights are published, and where their download is cached."""

    cached: bool
    server: str
    fetch: str
    folder: Path


@contextmanager
def without_vain_tries(model: str, tag: str, config: PretrainedCfg) -> Iterator[None]:
    """Inside the block weights that are cached are loaded without a network.

    Raises: ``DataError`` where they are not cached and the network is refused or not there: the
    hub's client would try again for a minute.
    """
    source = _hub(config) if config.hf_hub_id else _url(config)
    if source is None or (not source.cached and (why := _unreachable(source.server)) is None):
        yield
        return
    if not source.cached:
        raise DataError(
            f"the weights {tag!r} of timm/{model} cannot be downloaded ({why}); where there is a"
            f" network, run: {source.fetch}; then copy the result to {source.folder} here, or pass"
            " the .safetensors or .pth file instead of the tag"
        )
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True  # the client reads its variable at import, and this at calls
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub(config: PretrainedCfg) -> _Source:
    repository, _, revision = str(config.hf_hub_id).partition("@")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    paths = [try_to_load_from_cache(repository, file, revision=revision or None) for file in files]
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    return _Source(
        any(isinstance(path, str) for path in paths),
        constants.ENDPOINT,
        f"hf download {repository} {files[0]}",
        folder,
    )


def _url(config: PretrainedCfg) -> _Source | None:
    if not isinstance(config.url, str) or not config.url:
        return None
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(config.url).path).name
    return _Source(file.exists(), config.url, f"curl -LO {config.url}", file)


def _unreachable(url: str) -> str | None:
    """Why a server is not asked, or cannot be."""
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE:
        return "the network is refused, by --offline or HF_HUB_OFFLINE"
    return _no_answer(url)


@cache
def _no_answer(url: str) -> str | None:
    """Why a server does not answer; None for any answer. It is asked once in a process."""
    server = urlparse(url)
    try:
        request = Request(f"{server.scheme}://{server.netloc}", method="HEAD")  # noqa: S310  # of timm
        with urlopen(request, timeout=PROBE_SECONDS):  # noqa: S310  # as above
            return None
    except HTTPError:
        return None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        # The client may have other certificates.
        return None if isinstance(reason, ssl.SSLError) else f"{server.netloc}: {reason}"
