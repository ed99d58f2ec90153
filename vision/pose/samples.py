"""Three photographs of people that the package ships, to show that everything works without any download."""

from pathlib import Path

from vision.engine.registry import register
from vision.pose.augmentation import TopDownAugmentation
from vision.pose.data import TopDownData

PEOPLE = Path(__file__).resolve().parents[1] / "samples" / "people"
"""In COCO's layout, split ``people``; its README tells where they are from, their licences, and who annotated them."""

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
