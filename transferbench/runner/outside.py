"""What a store's numbers rest on and the store does not hold: datasets and weights files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from transferbench.data.cache import missing, prepare, prepared_as, stored_form
from transferbench.errors import DataError, TransferbenchError
from transferbench.identity import digest
from transferbench.networks.weight_paths import is_path, locate_weights
from transferbench.plan import Job
from transferbench.registry import Registry
from transferbench.runner.entries import RecordedEntry

__all__ = ["FoundWeights", "Outside", "check_datasets", "check_weights"]


Status = Literal["as it was", "other content", "not here", "not compared"]


class Outside(NamedTuple):
    """One thing outside the store: whether it is what the jobs were computed from."""

    name: str
    status: Status
    detail: str = ""


def check_datasets(
    jobs: Iterable[Job], registry: Registry, cache: Path, data_root: Path | None
) -> Iterator[Outside]:
    """The datasets of pre-trainings and trials; decodes again what the cache lacks."""
    payloads = (job.payload for job in jobs if "dataset" in job.payload)
    distinct = {digest([payload["dataset"], payload["image"]]): payload for payload in payloads}
    for payload in distinct.values():
        planned, image = payload["dataset"], payload["image"]
        name = f"dataset {planned['name']} at {image['size']} px ({planned['fingerprint'][:12]})"
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
    if spec.accepts(planned["params"]):  # of another version it may not
        spec = spec.with_params(spec.parse(planned["params"]))
    decoded = prepared_as(spec, planned["fingerprint"], cache) is not None
    copy = "the decoded images in the store are sound" if decoded else "nor are decoded images"
    if spec.version != planned["version"]:
        versions = f"it was version {planned['version']}, and is {spec.version} here"
        return Outside(name, "not here", f"{versions}; {copy}")
    if lacking := missing(spec, data_root):
        return Outside(name, "not here", f"{'; '.join(lacking)}; {copy}")
    dataset = prepare(
        spec, spec.parse(planned["params"]), stored_form(image), cache=cache, data_root=data_root,
        code=registry.file_code("dataset", spec.name),
    )  # fmt: skip
    if dataset.fingerprint != planned["fingerprint"]:
        return Outside(name, "other content", f"its fingerprint is {dataset.fingerprint[:12]}; "
                       f"{copy}")  # fmt: skip
    return Outside(name, "as it was")


# --- weights ----------------------------------------------------------------------------------


class FoundWeights(NamedTuple):
    """The external weights of trials: ``paths`` to those that are as they were, by sha256.

    ``unused``: files that were named though no trial started from them.
    """

    outside: list[Outside]
    paths: dict[str, str]
    unused: list[str]


def check_weights(
    jobs: Iterable[Job], named: Sequence[str], recorded: Iterable[RecordedEntry]
) -> FoundWeights:
    """Look for the weights of trials among those ``named``, and where runs ``recorded`` them.

    Raises: ``DataError`` where one of ``named`` is gone, incomplete or not weights.
    """
    used = {(start["tag"], start["sha256"] or "", _member(job.payload["backbone"]))
            for job in jobs
            if (start := (job.payload.get("initialization") or job.payload).get("weights"))
            }  # fmt: skip
    paths = {_required(text): str(Path(text).absolute()) for text in named}
    unused = [path for sha256, path in paths.items() if sha256 not in {key[1] for key in used}]
    requested = sorted({(entry.external.sha256, entry.weights) for entry in recorded
                        if entry.external and entry.external.sha256})  # fmt: skip
    outside = []
    for tag, sha256, backbone in sorted(used):
        name = f"weights {tag} of {backbone}" + (f" ({sha256[:12]})" if sha256 else "")
        texts = [paths[sha256]] if sha256 in paths else [t for sha, t in requested if sha == sha256]
        rows = [_file(name, text, sha256) for text in texts if text != tag or is_path(text)]
        if not sha256 or (texts and not rows):
            rows = [Outside(name, "not compared", "a tag: its backbone finds them by itself")]
        lost = Outside(name, "not here", "no file with this sha256 was named: pass --weights FILE")
        row = min(rows, key=lambda row: get_args(Status).index(row.status), default=lost)
        if row.status == "as it was":
            paths[sha256] = row.detail
        outside.append(row)
    return FoundWeights(outside, paths, unused)


def _member(backbone: Mapping[str, Any]) -> str:
    """A backbone with its member, such as ``timm/resnet18``."""
    texts = (value for value in backbone["params"].values() if isinstance(value, str))
    return "/".join([backbone["name"], *texts])


def _required(text: str) -> str:
    """The sha256 of weights that the user named."""
    located = locate_weights(text)
    if located is None:
        raise DataError(f"no weights file {text}; give the path of an existing file")
    return located.sha256


def _file(name: str, text: str, sha256: str) -> Outside:
    """The weights ``name`` in a file or folder, which a run may have recorded."""
    try:
        located = locate_weights(text)
        now = located and located.sha256
    except DataError as error:
        return Outside(name, "not here", str(error))
    if now == sha256:
        return Outside(name, "as it was", str(Path(text).absolute()))
    if not now:
        return Outside(name, "not here", f"{text} is gone: pass --weights FILE")
    # Another folder may be the current one now.
    status: Status = "other content" if Path(text).is_absolute() else "not here"
    return Outside(name, status, f"{text} has the sha256 {now[:12]}")
