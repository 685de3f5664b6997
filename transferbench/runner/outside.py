"""What a store's numbers rest on and the store does not hold: data sets and weights files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transferbench.data.cache import missing, prepare, prepared_as
from transferbench.errors import DataError, TransferbenchError
from transferbench.identity import digest
from transferbench.networks.weight_paths import WeightPaths, locate_weights
from transferbench.plan import Job
from transferbench.registry import Registry

__all__ = ["Outside", "check_datasets", "check_weights"]


class Outside(NamedTuple):
    """One thing outside the store: whether it is what the jobs were computed from."""

    name: str
    status: Literal["as it was", "other content", "not here"]
    detail: str = ""


def check_datasets(
    jobs: Iterable[Job], registry: Registry, cache: Path, data_root: Path | None
) -> Iterator[Outside]:
    """The data sets of pre-trainings and trials; decodes again what the cache lacks."""
    payloads = (job.payload for job in jobs if job.kind != "diagnosis")
    distinct = {digest([payload["dataset"], payload["image"]]): payload for payload in payloads}
    for payload in distinct.values():
        planned, image = payload["dataset"], payload["image"]
        name = f"data set {planned['name']} at {image['size']} px ({planned['fingerprint'][:12]})"
        try:
            yield _dataset(name, planned, image, registry, cache, data_root)
        except TransferbenchError as error:
            yield Outside(name, "not here", str(error))


def _dataset(
    name: str,
    planned: Mapping[str, Any],
    image: Mapping[str, Any],
    registry: Registry,
    cache: Path,
    data_root: Path | None,
) -> Outside:
    spec = registry.dataset(planned["name"])
    decoded = prepared_as(spec, planned["fingerprint"], cache) is not None
    copy = "the decoded images in the store are sound" if decoded else "nor are decoded images"
    if spec.version != planned["version"]:
        versions = f"it was version {planned['version']}, and is {spec.version} here"
        return Outside(name, "not here", f"{versions}; {copy}")
    if lacking := missing(spec, data_root):
        return Outside(name, "not here", f"{'; '.join(lacking)}; {copy}")
    dataset = prepare(
        spec, spec.parse(planned["params"]), image_size=image["size"],
        channels=image["channels"], cache=cache, data_root=data_root,
    )  # fmt: skip
    if dataset.fingerprint != planned["fingerprint"]:
        return Outside(name, "other content", f"its fingerprint is {dataset.fingerprint[:12]}; "
                       f"{copy}")  # fmt: skip
    return Outside(name, "as it was")


def check_weights(
    jobs: Iterable[Job], files: Sequence[Path]
) -> tuple[list[Outside], dict[str, str]]:
    """The external weights of trials, looked for among ``files``; and the sound files by sha256."""
    starts = (job.payload["initialization"] for job in jobs if job.kind == "trial")
    used = {(start["weights"]["tag"], start["weights"]["sha256"] or "")
            for start in starts if start.get("weights")}  # fmt: skip
    located = filter(None, map(_weights_at, files)) if used else ()
    sound = {weights.sha256: str(weights.path.absolute()) for weights in located}
    outside = []
    for tag, sha256 in sorted(used):
        if not sha256:
            outside.append(Outside(f"weights {tag}", "not here", "a tag: no id has its digest"))
            continue
        path, name = sound.get(sha256), f"weights {tag} ({sha256[:12]})"
        missing_text = "no file with this sha256 was named"
        outside.append(Outside(name, "as it was" if path else "not here", path or missing_text))
    return outside, sound


def _weights_at(path: Path) -> WeightPaths | None:
    with suppress(DataError):
        return locate_weights(str(path))
    return None
