"""Four-direction scan and merge of an image: the directions as orders of its positions.

Direction 0 walks the rows from left to right and top to bottom, 1 the columns from top to bottom and left to right,
2 is 0 backwards, 3 is 1 backwards. Tensors are channels-last with the ``H * W = L`` positions in row-major order.

Source: the cross-scan and cross-merge of VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166).
"""

import torch
from torch import Tensor

DIRECTIONS = 4


def scan_orders(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """The row-major index of the position that each direction visits at each step.

    Returns:
        int64, shape ``[4, H * W]``; every row is a permutation.

    Example:
        >>> scan_orders(2, 3).tolist()
        [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    """
    rows = torch.arange(height * width, device=device)
    columns = rows.view(height, width).t().reshape(-1)
    return torch.stack([rows, columns, rows.flip(0), columns.flip(0)])


def _by_columns(x: Tensor, height: int, width: int) -> Tensor:
    """``[N, H * W, ...]`` in row-major order to the same in column-major order."""
    return x.unflatten(1, (height, width)).transpose(1, 2).flatten(1, 2)


def _by_rows(x: Tensor, height: int, width: int) -> Tensor:
    """``[N, H * W, ...]`` in column-major order to the same in row-major order."""
    return x.unflatten(1, (width, height)).transpose(1, 2).flatten(1, 2)


def cross_scan(x: Tensor, height: int, width: int) -> Tensor:
    """An image as four sequences.

    Args:
        x: shape ``[N, H * W, ...]``, row-major.
        height: H, rows.
        width: W, columns.

    Returns:
        Shape ``[N, H * W, 4, ...]``: at ``[:, l, k]`` the position that direction k visits at step l.
    """
    columns = _by_columns(x, height, width)
    return torch.stack([x, columns, x.flip(1), columns.flip(1)], dim=2)


def cross_order(x: Tensor, height: int, width: int) -> Tensor:
    """Four tensors of one image, each put into the order of its own direction.

    Args:
        x: shape ``[N, H * W, 4, ...]``, row-major for every direction.
        height: H, rows.
        width: W, columns.

    Returns:
        Shape ``[N, H * W, 4, ...]``: at ``[:, l, k]`` the position that direction k visits at step l.
    """
    first, second, third, fourth = x.unbind(2)
    columns, backwards = _by_columns(second, height, width), _by_columns(fourth, height, width).flip(1)
    return torch.stack([first, columns, third.flip(1), backwards], dim=2)


def cross_unorder(y: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`cross_order`, and its transpose (adjoint); same shapes."""
    first, second, third, fourth = y.unbind(2)
    rows, backwards = _by_rows(second, height, width), _by_rows(fourth.flip(1), height, width)
    return torch.stack([first, rows, third.flip(1), backwards], dim=2)


def cross_merge(y: Tensor, height: int, width: int) -> Tensor:
    """Four sequences back to their positions, and summed; the transpose (adjoint) of :func:`cross_scan`.

    Args:
        y: shape ``[N, H * W, 4, ...]``, each direction in its own order.
        height: H, rows.
        width: W, columns.

    Returns:
        Shape ``[N, H * W, ...]``, row-major.
    """
    rows, columns, rows_back, columns_back = y.unbind(2)
    return rows + rows_back.flip(1) + _by_rows(columns + columns_back.flip(1), height, width)
