"""The images of a split as a tensor that is made batch by batch.

What diagnostics do with images is to go through them: ``torch.split``, a slice, some indices. That
makes the batches alone. Any other use makes the whole tensor, so that nothing is lost but memory.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

__all__ = ["ImageView"]

COMPARED = 256
"""Images of two views that are compared at a time."""

ViewPart: TypeAlias = tuple[Callable[[Tensor], Tensor], Tensor]


class ImageView:
    """Images (N, C, H, W): of each part those that its function makes of its indices, int64.

    ``example``: images of the same shape and kind, to be had without making one.
    """

    def __init__(
        self, parts: Sequence[ViewPart], example: Tensor | ImageView | None = None
    ) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(len(indices) for _, indices in self.parts))
        if example is None:
            make, indices = self.parts[0]
            example = make(indices[:1])
        self.shape: torch.Size = torch.Size((len(self), *example.shape[1:]))
        self.dtype: torch.dtype = example.dtype
        self.device: torch.device = example.device
        self.ndim: int = example.ndim

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """``function`` on views: of batches where it is one that goes through images."""
        del types
        kwargs = kwargs or {}
        if function in _BY_BATCH and (result := _BY_BATCH[function](*args, **kwargs)) is not None:
            return result
        return function(
            *map(_whole, args), **{name: _whole(value) for name, value in kwargs.items()}
        )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Tensor:
        """The images at a slice, or at indices. Shapes: (M, C, H, W)."""
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        if isinstance(index, Tensor) and index.ndim == 1 and index.dtype == torch.int64:
            return self.index_select(0, index).whole()
        return self.whole()[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def split(self, sizes: int | Sequence[int], dim: int = 0) -> Sequence[Tensor]:
        """As ``Tensor.split``, each batch made when it is its turn."""
        if dim != 0:
            batches: Sequence[Tensor] = self.whole().split(sizes, dim)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return batches
        return _Batches(self, torch.arange(len(self)).split(sizes))  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def tensor_split(self, sections: int, dim: int = 0) -> Sequence[Tensor]:
        """As ``Tensor.tensor_split``, each batch made when it is its turn."""
        if dim != 0:
            return self.whole().tensor_split(sections, dim)
        return _Batches(self, torch.arange(len(self)).tensor_split(sections))

    def index_select(self, dim: int, index: Tensor) -> ImageView:
        """The images at ``index`` along axis 0."""
        if dim != 0:
            raise ValueError(f"images are selected along axis 0, not {dim}")
        index = index.cpu().contiguous()
        parts, run = [], 0
        # Runs of indices into one part: each is made at once.
        part_of = torch.bucketize(index, torch.tensor(self._ends), right=True)
        for part, length in zip(
            *torch.unique_consecutive(part_of, return_counts=True), strict=True
        ):
            make, indices = self.parts[int(part)]
            first = self._ends[int(part)] - len(indices)
            parts.append((make, indices[index[run : run + int(length)] - first]))
            run += int(length)
        return ImageView(parts, self)

    def whole(self) -> Tensor:
        """The tensor of all images."""
        if not len(self):
            return torch.empty(self.shape, dtype=self.dtype, device=self.device)
        batches = [make(indices) for make, indices in self.parts]
        return batches[0] if len(batches) == 1 else torch.cat(batches)


class _Batches(Sequence[Tensor]):
    """Batches of a view, each made whenever it is read."""

    def __init__(self, view: ImageView, indices: Sequence[Tensor]) -> None:
        self._view, self._indices = view, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, position: int) -> Tensor: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, position: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(position, slice):
            return _Batches(self._view, self._indices[position])
        return self._view[self._indices[position]]


def _whole(value: Any) -> Any:
    if isinstance(value, ImageView):
        return value.whole()
    if isinstance(value, list | tuple):
        return type(value)(map(_whole, value))
    return value


def _cat(tensors: Sequence[Any], dim: int = 0) -> ImageView | None:
    if dim != 0 or not all(isinstance(each, ImageView) for each in tensors):
        return None
    return ImageView([part for each in tensors for part in each.parts])


def _equal(first: Any, second: Any) -> bool:
    if first.shape != second.shape:
        return False
    batches = (torch.split(each, COMPARED) for each in (first, second))
    return all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


_BY_BATCH: Mapping[Any, Callable[..., Any]] = {
    torch.split: lambda images, *args, **kwargs: images.split(*args, **kwargs),
    torch.tensor_split: lambda images, *args, **kwargs: images.tensor_split(*args, **kwargs),
    torch.cat: _cat,
    torch.equal: _equal,
}
