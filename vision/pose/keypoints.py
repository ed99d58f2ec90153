"""Skeletons as data: joints, mirror pairs, limbs and OKS constants, of the published data sets or a user's own."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.engine.errors import UserError, nearest

Pair = tuple[str, str]


class SkeletonError(UserError):
    """A skeleton that does not hold: a pair that does not pair, an unknown joint, a wrong number of constants."""


@dataclass(frozen=True)
class Skeleton:
    r"""The joints of a figure, in the order in which annotations list them.

    Attributes:
        name: what it is called.
        joints: names, each once; their number is K.
        flip_pairs: joints that a mirror image swaps; each joint in one pair at most. The others lie on the axis.
        limbs: joints that a drawing connects.
        sigmas: the constants of object keypoint similarity, one a joint, above 0: the standard deviation of annotators
            relative to the square root of the object's area. OKS is the mean over labelled joints of
            :math:`\exp(-d^2 / (2 (2 \sigma)^2 a))` for a distance :math:`d` and an area :math:`a` in pixels.
        upper: joints of the upper body, for half-body augmentation.
        lower: joints of the lower body.

    Raises:
        SkeletonError: no joints, a joint named twice, a pair, limb or half that names an unknown joint, a joint in
            two pairs or paired with itself, a wrong number of sigmas, or one that is not above 0.

    Example:
        >>> skeleton("coco").count, skeleton("coco").flip_index[:5]
        (17, [0, 2, 1, 4, 3])
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[Pair, ...]
    limbs: tuple[Pair, ...]
    sigmas: tuple[float, ...]
    upper: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.joints:
            raise SkeletonError(f"skeleton '{self.name}': joints is empty; name at least one")
        self._each_once("joints", self.joints)
        for field, pairs in (("flip_pairs", self.flip_pairs), ("limbs", self.limbs)):
            for pair in pairs:
                if len(pair) != 2 or pair[0] == pair[1]:
                    raise SkeletonError(f"skeleton '{self.name}': {field}: {list(pair)} is not two different joints")
                self._known(field, pair)
        for field, half in (("upper", self.upper), ("lower", self.lower)):
            self._known(field, half)
        self._each_once("flip_pairs", [joint for pair in self.flip_pairs for joint in pair])
        self._each_once("upper and lower", (*self.upper, *self.lower))
        if len(self.sigmas) != len(self.joints):
            raise SkeletonError(
                f"skeleton '{self.name}': {len(self.sigmas)} sigmas for {len(self.joints)} joints; give one a joint"
            )
        for joint, sigma in zip(self.joints, self.sigmas, strict=True):
            if not (math.isfinite(sigma) and sigma > 0):
                raise SkeletonError(
                    f"skeleton '{self.name}': the sigma of {joint} is {sigma}; expected a number above 0"
                )

    def _known(self, field: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.joints:
                raise SkeletonError(
                    f"skeleton '{self.name}': {field} names '{name}', which is not among its joints"
                    f"{nearest(name, self.joints)}"
                )

    def _each_once(self, field: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise SkeletonError(f"skeleton '{self.name}': {field}: '{name}' stands there twice; name it once")
            seen.add(name)

    @property
    def count(self) -> int:
        """K."""
        return len(self.joints)

    @property
    def flip_index(self) -> list[int]:
        """For each joint, the position of the joint it becomes in a mirror image: its partner, or itself."""
        partner = {a: b for pair in self.flip_pairs for a, b in (pair, pair[::-1])}
        return self.indices(partner.get(joint, joint) for joint in self.joints)

    @property
    def limb_indices(self) -> list[tuple[int, int]]:
        """The limbs as positions of joints."""
        return [(self.joints.index(a), self.joints.index(b)) for a, b in self.limbs]

    @property
    def upper_indices(self) -> list[int]:
        """Positions of the joints of the upper body."""
        return self.indices(self.upper)

    @property
    def lower_indices(self) -> list[int]:
        """Positions of the joints of the lower body."""
        return self.indices(self.lower)

    def plain(self) -> dict[str, Any]:
        """All fields as strings, numbers and lists."""
        return {
            name: value if isinstance(value, str) else [list(v) if isinstance(v, tuple) else v for v in value]
            for name, value in vars(self).items()
        }

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Skeleton":
        """The skeleton of :meth:`plain`.

        Raises:
            SkeletonError: fields that are no skeleton's.
        """
        try:
            kept: dict[str, Any] = {
                name: value if isinstance(value, str) else tuple(tuple(v) if isinstance(v, list) else v for v in value)
                for name, value in fields.items()
            }
            return cls(**kept)
        except TypeError as error:
            raise SkeletonError(f"not a skeleton: {error}") from error

    def indices(self, names: Iterable[str]) -> list[int]:
        """Positions of joints by name."""
        return [self.joints.index(name) for name in names]


def skeleton(name_or_path: str) -> Skeleton:
    """A skeleton by its name, ``coco``, ``crowdpose``, ``ochuman``, ``mpii`` or ``ap10k``, or from a YAML file.

    A file holds the fields of :class:`Skeleton`; ``sigmas`` may be one number for all joints, ``flip_pairs``,
    ``limbs``, ``upper`` and ``lower`` may be left out, and ``name`` is by default that of the file::

        joints: [left_tip, right_tip, tail]
        flip_pairs: [[left_tip, right_tip]]
        limbs: [[left_tip, tail], [right_tip, tail]]
        sigmas: 0.05

    Raises:
        SkeletonError: no such name or file, a file that is not such YAML, or what :class:`Skeleton` refuses.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _from_file(path)
    if name_or_path not in SKELETONS:
        raise SkeletonError(
            f"no skeleton is called '{name_or_path}'{nearest(name_or_path, SKELETONS)}; expected one of "
            f"{', '.join(SKELETONS)}, or a .yaml file of your own"
        )
    return SKELETONS[name_or_path]


def _from_file(path: Path) -> Skeleton:
    import yaml  # what is exported carries its skeleton, and is used where there may be no PyYAML

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SkeletonError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise SkeletonError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise SkeletonError(f"{path}: expected fields such as joints, flip_pairs, limbs and sigmas")
    known = tuple(Skeleton.__dataclass_fields__)
    for key in fields:
        if key not in known:
            raise SkeletonError(f"{path}: unknown field '{key}'{nearest(str(key), known)}; known: {', '.join(known)}")
    for key in ("joints", "sigmas"):
        if key not in fields:
            raise SkeletonError(f"{path}: '{key}' is missing" + "; one number will do for all" * (key == "sigmas"))
    joints = _names(path, "joints", fields["joints"])
    try:
        return Skeleton(
            name=str(fields.get("name", path.stem)),
            joints=joints,
            flip_pairs=_pairs(path, "flip_pairs", fields.get("flip_pairs", [])),
            limbs=_pairs(path, "limbs", fields.get("limbs", [])),
            sigmas=_sigmas(path, fields["sigmas"], len(joints)),
            upper=_names(path, "upper", fields.get("upper", [])),
            lower=_names(path, "lower", fields.get("lower", [])),
        )
    except SkeletonError as error:
        raise error if str(error).startswith(str(path)) else SkeletonError(f"{path}: {error}") from None


def _names(path: Path, field: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise SkeletonError(f"{path}: {field}: {given!r} is not a list of names")
    return tuple(given)


def _pairs(path: Path, field: str, given: Any) -> tuple[Pair, ...]:
    if not isinstance(given, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in given):
        raise SkeletonError(f"{path}: {field}: {given!r} is not a list of pairs such as [left_hip, right_hip]")
    return tuple((str(a), str(b)) for a, b in given)


def _sigmas(path: Path, given: Any, count: int) -> tuple[float, ...]:
    values = given if isinstance(given, list) else [given] * count
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise SkeletonError(f"{path}: sigmas: {given!r} is neither a number nor a list of numbers, one a joint")
    return tuple(float(value) for value in values)


def _both(*names: str) -> tuple[Pair, ...]:
    return tuple((f"left_{name}", f"right_{name}") for name in names)


_COCO = Skeleton(
    name="coco",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    flip_pairs=_both("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"),
        ("right_shoulder", "right_elbow"), ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"),
        ("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
        ("right_eye", "right_ear"), ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
    upper=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist",
    ),
    lower=("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)  # fmt: skip

_CROWDPOSE = Skeleton(
    name="crowdpose",
    joints=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    ),
    flip_pairs=_both("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"),
        ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"), ("head", "neck"), ("neck", "left_shoulder"),
        ("neck", "right_shoulder"),
    ),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
    upper=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "head", "neck",
    ),
    lower=("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)  # fmt: skip

_OCHUMAN = Skeleton("ochuman", _COCO.joints, _COCO.flip_pairs, _COCO.limbs, _COCO.sigmas, _COCO.upper, _COCO.lower)

# MPII is scored by PCKh and defines no OKS constants: these are the ones the field uses where it needs some.
_MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    flip_pairs=_both("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    limbs=(
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "pelvis"), ("pelvis", "left_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("pelvis", "thorax"), ("thorax", "upper_neck"),
        ("upper_neck", "head_top"), ("thorax", "right_shoulder"), ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"), ("thorax", "left_shoulder"), ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
    ),
    sigmas=(
        0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072, 0.062,
    ),
    upper=(
        "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder",
        "left_elbow", "left_wrist",
    ),
    lower=("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis"),
)  # fmt: skip

_AP10K = Skeleton(
    name="ap10k",
    joints=(
        "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
        "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
        "right_knee", "right_back_paw",
    ),
    flip_pairs=_both("eye", "shoulder", "elbow", "front_paw", "hip", "knee", "back_paw"),
    limbs=(
        ("left_eye", "right_eye"), ("left_eye", "nose"), ("right_eye", "nose"), ("nose", "neck"),
        ("neck", "root_of_tail"), ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_front_paw"), ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_front_paw"), ("root_of_tail", "left_hip"), ("left_hip", "left_knee"),
        ("left_knee", "left_back_paw"), ("root_of_tail", "right_hip"), ("right_hip", "right_knee"),
        ("right_knee", "right_back_paw"),
    ),
    sigmas=(
        0.025, 0.025, 0.026, 0.035, 0.035, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087,
        0.089,
    ),
    upper=(
        "left_eye", "right_eye", "nose", "neck", "left_shoulder", "left_elbow", "left_front_paw", "right_shoulder",
        "right_elbow", "right_front_paw",
    ),
    lower=(
        "root_of_tail", "left_hip", "left_knee", "left_back_paw", "right_hip", "right_knee", "right_back_paw",
    ),
)  # fmt: skip

SKELETONS = {each.name: each for each in (_COCO, _CROWDPOSE, _OCHUMAN, _MPII, _AP10K)}
"""The published skeletons by name. OCHuman's COCO-format files use COCO's joints."""
