"""What a store's numbers rest on and the store does not hold: data sets and weights files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transferbench.data.cache import missing, prepare, prepared_as
from transferbench.errors import TransferbenchError
from transferbench.identity import digest, file_digest
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
    """The external weights of trials, looked for among ``files``; and the sound files by tag."""
    tags = {
        (weights["tag"], weights["sha256"])
        for job in jobs
        if job.kind == "trial" and (weights := job.payload["initialization"].get("weights"))
    }
    digests = {file_digest(path): path for path in files if path.is_file()} if tags else {}
    outside, sound = [], {}
    for tag, sha256 in sorted(tags):
        name = f"weights {tag} ({sha256[:12]})"
        if path := digests.get(sha256):
            sound[tag] = str(path.absolute())
            outside.append(Outside(name, "as it was", str(path)))
        else:
            outside.append(Outside(name, "not here", "no file with this sha256 was named"))
    return outside, sound
