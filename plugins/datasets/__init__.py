"""The built-in datasets."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import DatasetSpec
from transferbench_plugins.datasets.chexpert import CHEXPERT
from transferbench_plugins.datasets.digits import DIGITS
from transferbench_plugins.datasets.domainnet import DOMAINNET
from transferbench_plugins.datasets.fashion_mnist import FASHION_MNIST
from transferbench_plugins.datasets.glyphs import GLYPHS
from transferbench_plugins.datasets.huggingface import HUGGINGFACE
from transferbench_plugins.datasets.image_folder import IMAGE_FOLDER
from transferbench_plugins.datasets.image_table import IMAGE_TABLE
from transferbench_plugins.datasets.imagenet import IMAGENET
from transferbench_plugins.datasets.mnist_5k import MNIST_5K
from transferbench_plugins.datasets.npz import NPZ
from transferbench_plugins.datasets.openmoji import OPENMOJI
from transferbench_plugins.datasets.torchvision_data import TORCHVISION
from transferbench_plugins.datasets.webdataset import WEBDATASET

__all__ = ["transferbench_datasets"]


@hookimpl
def transferbench_datasets() -> list[DatasetSpec]:
    """All built-in datasets."""
    return [
        CHEXPERT,
        DIGITS,
        DOMAINNET,
        FASHION_MNIST,
        GLYPHS,
        HUGGINGFACE,
        IMAGE_FOLDER,
        IMAGE_TABLE,
        IMAGENET,
        MNIST_5K,
        NPZ,
        OPENMOJI,
        TORCHVISION,
        WEBDATASET,
    ]
