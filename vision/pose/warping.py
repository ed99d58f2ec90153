"""Crops of images under any affine map, by PyTorch: what networks are trained on."""

import torch
from torch.nn.functional import grid_sample

from vision.pose.crops import Matrix, Size, part_and_grid
from vision.pose.images import RGB


def warped(image: RGB, matrix: Matrix, size: Size) -> RGB:
    """The crop of an image: bilinear between pixel centres, with black pixels all around the image.

    There is no smoothing before sampling down, as in the field's other implementations.

    Args:
        image: uint8, shape ``[h, w, 3]``.
        matrix: from pixels of the image to pixels of the crop.
        size: of the crop.

    Returns:
        uint8, shape ``[H, W, 3]``, rounded.
    """
    part, places = part_and_grid(image, matrix, size)  # only that part is turned into floating point
    to_grid = torch.from_numpy(places)
    columns, rows = torch.arange(size[0])[None, :, None], torch.arange(size[1])[:, None, None]
    grid = to_grid[:, 0] * columns + (to_grid[:, 1] * rows + to_grid[:, 2])
    pixels = torch.from_numpy(part.astype("float32")).permute(2, 0, 1)[None]
    sampled = grid_sample(pixels, grid[None], padding_mode="zeros", align_corners=False)[0]
    return sampled.round_().to(torch.uint8).permute(1, 2, 0).numpy()
