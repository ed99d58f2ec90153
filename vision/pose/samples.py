"""Photographs of people that the package ships, to show that everything works without any download."""

from pathlib import Path

from vision.engine.registry import register
from vision.pose.augmentation import TopDownAugmentation
from vision.pose.data import TopDownData
from vision.pose.single_stage_data import SingleStageData
from vision.pose.whole_images import SingleStageAugmentation

PEOPLE = Path(__file__).resolve().parents[1] / "samples" / "people"
"""In COCO's layout: split ``people``, three photographs of one person each, and split ``group``, four people side by
side. Its README tells where they are from, their licences, and who annotated them."""

STILL = SingleStageAugmentation(scale=(1, 1), rotation=0, translation=0, flip=0)
FLIPPED = TopDownAugmentation(half_body=0, shift_probability=0, scale_probability=0, rotation_probability=0)


@register("sample_people")
def sample_people(input_size: tuple[int, int] = (192, 256), augmentation: TopDownAugmentation = FLIPPED) -> TopDownData:
    """Crops of three people on free photographs, annotated by hand; judged on the same three.

    A figure on them says that targets, network, decoding and scoring agree, and nothing about other people.

    Args:
        input_size: width and height of a crop, pixels.
        augmentation: of training crops; by default mirror images alone.
    """
    return TopDownData(
        root=str(PEOPLE),
        train_splits=("people",),
        test_split=None,
        overfit=True,
        input_size=input_size,
        augmentation=augmentation,
    )


@register("sample_people_whole")
def sample_people_whole(size: int = 256, augmentation: SingleStageAugmentation = STILL) -> SingleStageData:
    """Three free photographs of one person each and a picture of four people, whole; judged on the same four images.

    Args:
        size: side of a training square, and the shorter side of an image when it is judged, pixels; a multiple of 32.
        augmentation: of training squares; by default none.
    """
    return SingleStageData(
        root=str(PEOPLE),
        train_splits=("people", "group"),
        test_split=None,
        overfit=True,
        size=size,
        augmentation=augmentation,
        smallest_area=0.0,
    )
