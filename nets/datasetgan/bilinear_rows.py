"""Bilinear resizing as weighted sums of rows, for the pixels that are needed alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Taps = tuple[torch.Tensor, torch.Tensor]


def line_neighbours(
    position: torch.Tensor, size: int, full_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two places of a line of ``size`` around positions of the full one, and the share of the second."""
    place = ((position + 0.5) * (size / full_size) - 0.5).clamp(min=0)
    lower = place.floor().long()
    return lower, (lower + 1).clamp(max=size - 1), place - lower


def neighbours(row: torch.Tensor, column: torch.Tensor, size: Sequence[int], full_size: Sequence[int]) -> Taps:
    """The four places (P, 4) of a level, row by row, around pixels (P,) of the image, and their weights (P, 4)."""
    upper, lower, down = line_neighbours(row, size[0], full_size[0])
    left, right, along = line_neighbours(column, size[1], full_size[1])
    places = [line * size[1] + place for line in (upper, lower) for place in (left, right)]
    shares = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
    return torch.stack(places, dim=1), torch.stack(shares, dim=1)


class Resize:
    """Weighted sums of rows of tables that share their places, and so the order in which gradients come back.

    Args:
        places: (P, T), which rows of a table each sum takes.
        shares: (P, T), their weights.
        n_rows: rows of the tables.
    """

    def __init__(self, places: torch.Tensor, shares: torch.Tensor, n_rows: int) -> None:
        self.places, self.shares, self.n_rows = places, shares, n_rows
        self.back: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def joined(cls, taps: Sequence[Taps], lengths: Sequence[int]) -> Resize | None:
        """Add up the sums of several tables, of these lengths, that lie one below the other; None for no table."""
        if not taps:
            return None
        starts = accumulate(lengths, initial=0)
        places = [places + start for (places, _), start in zip(taps, starts, strict=False)]
        return cls(torch.cat(places, dim=1), torch.cat([shares for _, shares in taps], dim=1), sum(lengths))

    def __call__(self, table: torch.Tensor) -> torch.Tensor:
        """Give the sums (P, C) of a table (n_rows, C)."""
        return _Resized.apply(table, self)

    def transposed(self, gradient: torch.Tensor) -> torch.Tensor:
        """Give the gradient (n_rows, C) of the table for one (P, C) of the sums."""
        if self.back is None:
            places, order = self.places.flatten().sort()
            starts = torch.searchsorted(places, torch.arange(self.n_rows, device=places.device))
            self.back = order // self.places.shape[1], starts, self.shares.flatten()[order]
        sums, starts, shares = self.back
        return F.embedding_bag(sums, gradient, starts, mode="sum", per_sample_weights=shares.to(gradient.dtype))


class _Resized(torch.autograd.Function):
    """The sums of a :class:`Resize`; torch's own gradient of ``embedding_bag`` sorts again and takes four times."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, resize: Resize) -> torch.Tensor:
        ctx.resize = resize
        return weighted_sum(table, resize.places, resize.shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.resize.transposed(gradient.contiguous()), None


def weighted_sum(table: torch.Tensor, places: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Sums (P, C) of rows of a table (M, C), by places (P, T) and weights (P, T)."""
    return F.embedding_bag(places, table, per_sample_weights=shares.to(table.dtype), mode="sum")


def gathered_sum(table: torch.Tensor, places: torch.Tensor, shares: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same in another type, to which only the rows needed are brought."""
    if table.dtype != dtype:
        table = table[places.flatten()].to(dtype)
        places = torch.arange(places.numel(), device=places.device).view_as(places)
    return weighted_sum(table, places, shares)
