"""DHRNet against golden values of the released code and its own plain reading, and what people may not exchange."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.pose.golden_single_stage import agrees, fill, golden_images
from tests.pose.released_names import cid_shapes, dhrnet_shapes
from vision.engine.errors import ConfigError
from vision.engine.registry import build
from vision.pose.dhrnet import DHRNet, People, Search, cid, probability
from vision.pose.losses_single_stage import contrast_loss, focal_loss
from vision.pose.peaks import decode_poses
from vision.pose.relations import Attention, CrossInstance, CrossJoint, DualPath, Grouping
from vision.pose.targets import Annotated, encode


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def people_of(coords: list[list[int]], images: list[int]) -> People:
    cells = torch.tensor(coords, dtype=torch.int64).view(-1, 2)
    return People(cells, torch.tensor(images, dtype=torch.int64), torch.ones(len(images)))


GOLDEN_PEOPLE = people_of([[5, 7], [20, 11], [16, 16]], [0, 0, 1])


@pytest.fixture(scope="module")
def filled_network() -> DHRNet:
    network = fill(DHRNet())
    assert isinstance(network, DHRNet)
    return network


@pytest.fixture(scope="module")
def golden_features(filled_network: DHRNet) -> Tensor:
    with torch.no_grad():
        return filled_network.features(golden_images())


def small(attention: Attention = "release", dual_path: bool = True, **options: Any) -> DHRNet:
    """A narrow network whose head is not near constant, in float64."""
    torch.manual_seed(0)
    network = DHRNet(
        keypoints=5, backbone="hrnet_w18_small", channels=12, attention=attention, dual_path=dual_path, **options
    )
    generator = torch.Generator().manual_seed(1)
    for module in (*network.gfd.modules(), network.iia.keypoint_center_conv):
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5, generator=generator)
    return network.double().eval()


# -- sizes and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "total", "iia", "gfd", "relation"),
    [
        ({}, 29_370_514, 8_658, 56_320, 6_866),
        ({"keypoints": 14}, 29_367_583, 7_215, 54_832, 5_576),
        ({"backbone": "hrnet_w48"}, 65_459_272, 12_978, 121_174, 10_952),
        ({"backbone": "hrnet_w48", "channels": 32}, 65_417_458, 12_978, 79_360, 6_866),
    ],
)
def test_parameters_by_part(options: dict[str, Any], total: int, iia: int, gfd: int, relation: int) -> None:
    with torch.device("meta"):
        network = DHRNet(**options)
    assert [count(m) for m in (network, network.iia, network.gfd, network.gfd.dual_relation)] == [
        total, iia, gfd, relation,
    ]  # fmt: skip
    assert len(network.state_dict()) == 1_871


def test_parameters_of_the_head() -> None:
    with torch.device("meta"):
        gfd = DHRNet().gfd
    parts = {name: count(module) for name, module in gfd.named_children()} | {
        name: count(module) for name, module in gfd.dual_relation.named_children()
    }
    assert parts == {
        "conv_down": 15_392, "c_attn": 15_392, "s_attn": 15_468, "fuse_attn": 2_080, "heatmap_conv": 561,
        "pre_heatmap_conv": 561, "dual_relation": 6_866, "cross_instance": 0, "kpts_relation": 918,
        "kpts_relation_2": 918, "se_block1": 294, "se_block2": 294, "ca": 294, "sa": 98, "inst_kpt_conv": 850,
        "kpt_inst_conv": 1_600, "feat_fusion_conv": 1_600,
    }  # fmt: skip


def test_cid_is_dhrnet_without_its_dual_path() -> None:
    with torch.device("meta"):
        plain, whole = cid(), DHRNet()
    assert count(plain) == 29_363_087 == count(whole) - 7_427
    more = set(whole.state_dict()) - set(plain.state_dict())
    assert {name.split(".")[1] for name in more} == {"pre_heatmap_conv", "dual_relation"}
    assert set(plain.state_dict()) < set(whole.state_dict())


@pytest.mark.parametrize(
    ("width", "keypoints", "channels"), [(32, 17, 32), (32, 14, 32), (48, 17, 48)], ids=["coco", "crowdpose", "w48"]
)
def test_names_and_shapes_are_the_released_ones(width: int, keypoints: int, channels: int) -> None:
    with torch.device("meta"):
        whole, plain = DHRNet(keypoints, f"hrnet_w{width}"), cid(keypoints, f"hrnet_w{width}")
    for network, expected in ((whole, dhrnet_shapes), (plain, cid_shapes)):
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        assert shapes == expected(width, keypoints, channels)


@pytest.mark.parametrize("dual_path", [True, False])
def test_training_begins_at_the_prior(dual_path: bool) -> None:
    """Small weights in every layer of the heads, biases of zero but for those of what is a probability."""
    torch.manual_seed(0)
    network = DHRNet(backbone="hrnet_w18_small", dual_path=dual_path)
    prior = (network.iia.keypoint_center_conv, network.gfd.heatmap_conv)
    layers = [m for m in (*network.iia.modules(), *network.gfd.modules()) if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == (1 + 6 + (1 + 6 + 4 + 2 + 1 + 3) * dual_path)
    for layer in layers:
        assert float(layer.weight.detach().std()) == pytest.approx(0.001, rel=0.35)
        if layer.bias is not None:
            expected = -4.59512 if layer in prior else 0.0
            torch.testing.assert_close(layer.bias.detach(), torch.full_like(layer.bias, expected))


# -- golden values ---------------------------------------------------------------------------------------------------


def test_golden_features(golden_features: Tensor) -> None:
    assert golden_features.shape == (2, 480, 32, 32)
    agrees(
        golden_features, mean=1.61647398e-1, std=2.97881431e-1, min=0.0, max=2.45474751, first=5.62766332e-1,
        middle=5.15875813e-1, last=7.05511606e-2,
    )  # fmt: skip


def test_golden_maps(filled_network: DHRNet, golden_features: Tensor) -> None:
    with torch.no_grad():
        agrees(
            filled_network.maps(golden_features), mean=-4.93722074e-2, std=3.00840432e-1, min=-5.03647619e-1,
            max=5.10051271e-1, first=-2.35111180e-1, middle=-2.24786533e-1, last=-4.36897743e-1,
        )  # fmt: skip


def test_golden_head(filled_network: DHRNet, golden_features: Tensor) -> None:
    gfd = filled_network.gfd
    with torch.no_grad():
        vectors = filled_network.vectors(golden_features, GOLDEN_PEOPLE)
        shared = gfd.conv_down(golden_features)
        agrees(shared, mean=3.39129292e-3, std=2.91776592e-1)
        own = shared[GOLDEN_PEOPLE.image]
        agrees(own * gfd.c_attn(vectors)[..., None, None], mean=4.48898254e-2, std=6.21778120e-2)
        similarity = (own * gfd.s_attn.atn(vectors)[..., None, None]).sum(1)
        mask = gfd.s_attn(similarity, GOLDEN_PEOPLE.coords)
        agrees(own * mask[:, None], mean=1.66738546e-3, std=1.42694039e-1)
        groups = Grouping(GOLDEN_PEOPLE.image, 2)
        cond = gfd.decoupled(shared, vectors, GOLDEN_PEOPLE.coords, groups)
        agrees(cond, mean=5.72458653e-2, std=7.40556872e-2)
        joints = gfd.pre_heatmap_conv(cond).relu()
        agrees(joints, mean=1.90411208e-2, std=2.97114022e-2)
        agrees(
            gfd.dual_relation(cond, joints, vectors, groups), mean=5.96507981e-2, std=7.32219532e-2,
            max=2.55073716e-1, first=1.50300526e-3, last=3.89172690e-2,
        )  # fmt: skip
        agrees(
            probability(filled_network.heatmaps(golden_features, GOLDEN_PEOPLE)), mean=5.00018069e-1,
            std=1.65761973e-2, first=5.19549459e-1, last=4.76815375e-1,
        )  # fmt: skip


def relation_inputs() -> tuple[Tensor, Tensor, Tensor]:
    cond = torch.sin(0.013 * torch.arange(3 * 32 * 8 * 12, dtype=torch.float64)).relu().view(3, 32, 8, 12)
    joints = torch.cos(0.017 * torch.arange(3 * 17 * 8 * 12, dtype=torch.float64)).relu().view(3, 17, 8, 12)
    vectors = torch.sin(0.029 * torch.arange(3 * 480, dtype=torch.float64)).view(3, 480)
    return cond, joints, vectors


GROUPS = Grouping(torch.tensor([0, 0, 1]), 2)


def test_golden_dual_path_as_released() -> None:
    cond, joints, vectors = relation_inputs()
    module = fill(DualPath())
    with torch.no_grad():
        agrees(
            module.cross_instance(cond.flatten(2), vectors, GROUPS), mean=3.37439662e-1, std=3.97230622e-1,
            max=1.04891821, first=2.59056242e-2, last=4.13111125e-1,
        )  # fmt: skip
        agrees(
            module.kpts_relation_2(joints.flatten(2), GROUPS), mean=4.16398843e-1, std=5.83953129e-1, max=2.47163099,
            first=1.30881621, last=0.0,
        )  # fmt: skip
        agrees(
            module(cond, joints, vectors, GROUPS), mean=3.45273200e-1, std=3.79878720e-1, max=1.27353996,
            first=1.03488297e-2, last=3.99244551e-1,
        )  # fmt: skip


def test_golden_dual_path_over_keys() -> None:
    cond, joints, vectors = relation_inputs()
    module = fill(DualPath(attention="keys"))
    with torch.no_grad():
        agrees(
            module.cross_instance(cond.flatten(2), vectors, GROUPS), mean=6.54459753e-1, std=6.50250863e-1,
            max=1.99999996, first=2.84897495e-1, last=8.05426500e-1,
        )  # fmt: skip
        agrees(
            module.kpts_relation_2(joints.flatten(2), GROUPS), mean=4.16133813e-1, std=4.49602112e-1, max=1.86459183,
            first=1.04301028,
        )  # fmt: skip
        agrees(
            module(cond, joints, vectors, GROUPS), mean=3.65818993e-1, std=3.88167732e-1, max=1.37275346,
            first=9.86869563e-3, last=3.81722995e-1,
        )  # fmt: skip


@pytest.fixture(scope="module")
def decoding_network() -> DHRNet:
    """Filled, then with centres and heatmaps that stand out."""
    network = fill(DHRNet())
    assert isinstance(network, DHRNet)
    centres, heatmaps = network.iia.keypoint_center_conv, network.gfd.heatmap_conv
    with torch.no_grad():
        centres.weight[-1] *= 4
        assert centres.bias is not None
        centres.bias[-1] = 1.0
        heatmaps.weight *= 20
    return network


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_decoding(decoding_network: DHRNet, dtype: torch.dtype) -> None:
    network = copy.deepcopy(decoding_network).to(dtype)
    image = torch.sin(0.01 * torch.arange(3 * 128 * 192, dtype=torch.float64)).view(1, 3, 128, 192).to(dtype)
    with torch.no_grad():
        plain = network.detect(image)
        poses, scores = decode_poses(plain.heatmaps, plain.people.scores)
    close = {"rel": 1e-6, "abs": 1e-6} if dtype == torch.float64 else {"rel": 1e-4, "abs": 1e-5}
    assert len(poses) == 30
    assert scores[:3].tolist() == pytest.approx([0.2128854, 0.2118885, 0.2105265], **close)
    expected = [[135, 87, 0.3658208], [185, 91, 0.0870727], [151, 9, 0.1656211]]
    assert poses[0, :3].flatten().tolist() == pytest.approx([value for row in expected for value in row], **close)
    assert poses[..., :2].double().sum((0, 1)).tolist() == [77606, 39002], "whole pixels, in either precision"
    assert float(poses[..., 2].sum()) == pytest.approx(104.36988, **close)

    flip = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    with torch.no_grad():
        both = network.detect(image, flip)
        poses, scores = decode_poses(both.heatmaps, both.people.scores)
    assert scores[:3].tolist() == pytest.approx([0.2104175, 0.2075159, 0.2072785], **close)
    expected = [[71, 41, 0.3619663], [7, 71, 0.1221898], [121, 7, 0.1263763]]
    assert poses[0, :3].flatten().tolist() == pytest.approx([value for row in expected for value in row], **close)
    assert poses[..., :2].double().sum((0, 1)).tolist() == [63922, 31724]
    assert float(poses[..., 2].sum()) == pytest.approx(102.96431, **close)


# -- consequences, grouping and memory -------------------------------------------------------------------------------


def plain_dual_path(
    module: DualPath, people: Tensor, joints: Tensor, vectors: Tensor, image: list[int], scale: float = 128.0
) -> Tensor:
    """The dual path read out literally: image by image, channel by channel, person by person."""
    keys = module.cross_instance.attention == "keys"

    def cross_instance(x: Tensor, v: Tensor) -> Tensor:
        flat = x.flatten(2)
        relations = torch.stack(
            [flat[:, c] @ flat[:, c].T / scale + v @ v.T / v.shape[1] for c in range(flat.shape[1])]
        )
        weights = relations.softmax(2 if keys else 0)
        rebuilt = torch.stack([weights[c] @ flat[:, c] for c in range(flat.shape[1])], dim=1)
        return F.relu(rebuilt.view_as(x) + x)

    def cross_joint(layer: CrossJoint, x: Tensor) -> Tensor:
        q, k, v = (conv(x).flatten(2) for conv in (layer.kpts_conv_q, layer.kpts_conv_k, layer.kpts_conv_v))
        relations = torch.stack([q[p] @ k[p].T / scale for p in range(len(x))])
        weights = relations.softmax(2 if keys else 0)
        return F.relu(torch.stack([weights[p] @ v[p] for p in range(len(x))]).view_as(x) + x)

    def fused(gate: nn.Module, conv: nn.Conv2d, *parts: Tensor) -> Tensor:
        both = torch.cat(parts, 1)
        return conv(both * gate(both.mean((2, 3)))[..., None, None])

    out = torch.empty_like(people)
    for each in sorted(set(image)):
        own = [p for p, i in enumerate(image) if i == each]
        x, j, v = people[own], joints[own], vectors[own]
        first = cross_joint(
            module.kpts_relation, fused(module.se_block1, module.inst_kpt_conv, cross_instance(x, v), j)
        )
        z = fused(module.se_block2, module.kpt_inst_conv, cross_joint(module.kpts_relation_2, j), x)
        u = torch.cat((first, cross_instance(z, v)), 1)
        u = u * module.ca(u.mean((2, 3)), u.amax((2, 3)))[..., None, None]
        u = u * module.sa(u.mean(1), u.amax(1))[:, None]
        out[own] = F.relu(module.feat_fusion_conv(u) + x)
    return out


@pytest.mark.parametrize("attention", ["release", "keys"])
@pytest.mark.parametrize("image", [[0, 0, 0], [0, 0, 1], [2, 0, 2, 1, 0], [1]])
def test_the_dual_path_is_its_plain_reading(attention: Attention, image: list[int]) -> None:
    torch.manual_seed(2)
    module = DualPath(12, 5, attention, scale=3.0).double()
    n = len(image)
    people, joints, vectors = (torch.randn(n, *s, dtype=torch.float64) for s in ((12, 4, 6), (5, 4, 6), (20,)))
    groups = Grouping(torch.tensor(image), 3)
    with torch.no_grad():
        found = module(people, joints, vectors, groups)
        torch.testing.assert_close(found, plain_dual_path(module, people, joints, vectors, image, 3.0))
        if len(set(image)) == 1:
            torch.testing.assert_close(module(people, joints, vectors), found)


def test_person_vectors_have_no_say_in_the_released_axes_but_over_keys() -> None:
    cond, joints, vectors = relation_inputs()
    for attention, matters in (("release", False), ("keys", True)):
        module = fill(DualPath(attention=attention))
        with torch.no_grad():
            change = module(cond, joints, vectors, GROUPS) - module(cond, joints, 7 * vectors, GROUPS)
        assert (float(change.abs().max()) > 1e-6) == matters


def test_one_person_as_released() -> None:
    """Attention over people is 1 in CJM, and CIM is a gate that a softmax over channels gives."""
    torch.manual_seed(0)
    x = torch.randn(1, 6, 20, dtype=torch.float64)
    joint = CrossJoint(6).double()
    with torch.no_grad():
        value = joint.kpts_conv_v(x[..., None]).squeeze(3)
        torch.testing.assert_close(joint(x), F.relu(value.sum(1, keepdim=True) + x))
    gate = ((x * x).sum(2) / 128).softmax(1)
    torch.testing.assert_close(CrossInstance()(x, torch.zeros(1, 4)), F.relu(x * (1 + gate[..., None])))


@pytest.mark.parametrize("attention", ["release", "keys"])
def test_people_of_different_images_never_mix_beyond_200_of_them_in_any_order(attention: Attention) -> None:
    torch.manual_seed(0)
    module = DualPath(12, 5, attention).double()
    image = torch.randint(4, (230,))
    people, joints, vectors = (torch.randn(230, *s, dtype=torch.float64) for s in ((12, 3, 3), (5, 3, 3), (8,)))
    with torch.no_grad():
        together = module(people, joints, vectors, Grouping(image, 4))
        for each in range(4):
            own = image == each
            torch.testing.assert_close(together[own], module(people[own], joints[own], vectors[own]))


@pytest.mark.parametrize("attention", ["release", "keys"])
def test_people_are_grouped_without_looking_at_any_value(attention: Attention) -> None:
    """On a device without values whatever waits for one, or makes a list of some, fails."""
    with torch.device("meta"):
        network = DHRNet(keypoints=5, backbone="hrnet_w18_small", channels=12, attention=attention)
        features, people = (
            torch.randn(2, 240, 8, 8),
            People(torch.ones(7, 2).long(), torch.ones(7).long(), torch.ones(7)),
        )
        heatmaps = network.heatmaps(features, people)
    assert heatmaps.shape == (7, 5, 8, 8)
    with pytest.raises((RuntimeError, NotImplementedError)):
        people.image.tolist()


def test_a_training_pass_waits_for_no_value() -> None:
    """From annotations to losses: on a device without values it would fail."""
    with torch.device("meta"):
        network = DHRNet(keypoints=5, backbone="hrnet_w18_small", channels=12)
        features, mask = torch.randn(2, 240, 8, 8), torch.ones(2, 1, 8, 8)
        ones = torch.ones(9).long()
        annotated = Annotated(
            joints=torch.ones(9, 5, 2), labelled=torch.ones(9, 5).bool(), radius=ones, centres=torch.ones(9, 2),
            centred=ones.bool(), image=ones, count=2, chosen=torch.ones(7).long(), coords=torch.ones(7, 2).long(),
        )  # fmt: skip
        targets = encode(annotated.limited(6), (8, 8))
        people = People(targets.coords, targets.image, torch.ones(6))
        vectors = network.vectors(features, people)
        losses = (
            focal_loss(probability(network.maps(features)), targets.everyone, mask),
            contrast_loss(vectors, targets.image),
            focal_loss(probability(network.heatmaps(features, people, vectors)), targets.people, targets.weight),
        )
        sum(losses).backward()  # type: ignore[union-attr]
    assert [loss.shape for loss in losses] == [()] * 3
    assert targets.people.shape == (6, 5, 8, 8)


@pytest.mark.parametrize(
    ("backbone", "side", "features", "maps"),
    [
        ("hrnet_w32", 512, 41.23, 0.14), ("hrnet_w48", 512, 84.72, 0.21), ("hrnet_w32", 640, 64.42, None),
        ("hrnet_w48", 640, 132.38, None),
    ],
)  # fmt: skip
def test_shapes_and_multiply_adds_of_the_backbone(
    backbone: str, side: int, features: float, maps: float | None
) -> None:
    """In units of 1e9, as docs/dhrnet.md tells them."""
    with torch.device("meta"):
        network, images = DHRNet(backbone=backbone).eval(), torch.randn(1, 3, side, side)
    with FlopCounterMode(display=False) as first:
        found = network.features(images)
    with FlopCounterMode(display=False) as second:
        everyone = network.maps(found)
    assert found.shape == (1, 480 if backbone == "hrnet_w32" else 720, side // 4, side // 4)
    assert everyone.shape == (1, 18, side // 4, side // 4)
    assert first.get_total_flops() / 2e9 == pytest.approx(features, abs=0.006)
    if maps is not None:
        assert second.get_total_flops() / 2e9 == pytest.approx(maps, abs=0.006)


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that any operation's output has."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
        return made


@pytest.mark.parametrize("attention", ["release", "keys"])
@pytest.mark.parametrize("groups", [None, Grouping(torch.arange(100) % 3, 3)])
def test_the_cross_instance_term_takes_channels_times_people_squared(
    attention: Attention, groups: Grouping | None
) -> None:
    people, channels, cells = 100, 4, 6
    x = torch.randn(people, channels, cells)
    with torch.no_grad(), LargestTensor() as largest:
        CrossInstance(attention)(x, torch.randn(people, 3), groups)
    assert largest.numbers == channels * people**2


@pytest.mark.parametrize("dual_path", [True, False])
def test_a_batch_gives_what_each_image_gives(dual_path: bool) -> None:
    network = small(dual_path=dual_path)
    images = torch.randn(3, 3, 64, 96, dtype=torch.float64)
    flip = [0, 2, 1, 4, 3]
    with torch.no_grad():
        for index in (None, flip):
            together = network.detect(images, index)
            for each in range(3):
                alone, own = network.detect(images[each, None], index), together.people.image == each
                assert torch.equal(alone.people.coords, together.people.coords[own])
                torch.testing.assert_close(alone.heatmaps, together.heatmaps[own])


def test_a_flip_test_is_two_passes_over_one_set_of_centres() -> None:
    """Mirrored features are turned back before anything else; joints change names after it, without a shift."""
    network, flip = small(), [0, 2, 1, 4, 3]
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found = network.detect(image, flip)
        features = [network.features(image), network.features(image.flip(-1)).flip(-1)]
        centres = sum(probability(network.maps(f)[:, -1]) for f in features) / 2
        people = network.find(torch.as_tensor(centres))
        plain, mirrored = (probability(network.heatmaps(f, people)) for f in features)
    assert torch.equal(found.people.coords, people.coords)
    assert len(people.coords) > 1
    torch.testing.assert_close(found.people.scores, people.scores)
    torch.testing.assert_close(found.heatmaps, (plain + mirrored[:, flip]) / 2)


@pytest.mark.parametrize("flip", [None, [0, 2, 1, 4, 3]])
def test_where_no_centre_is_sure_enough_nobody_is_found(flip: list[int] | None) -> None:
    network = small()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert network.iia.keypoint_center_conv.bias is not None
        network.iia.keypoint_center_conv.weight[-1] = 0
        network.iia.keypoint_center_conv.bias[-1] = -20
        found, slots = network.detect(images, flip), network(images)
        poses, scores = decode_poses(found.heatmaps, found.people.scores)
    assert found.heatmaps.shape == (0, 5, 16, 16)
    assert poses.shape == (0, 5, 3) and scores.shape == (0,)
    assert not slots.any()


def test_forward_puts_each_image_into_its_own_places() -> None:
    network = small(search=Search(most=4))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    images[1] = 0
    with torch.no_grad():
        slots, found = network(images), network.detect(images)
    assert slots.shape == (2, 4, 5, 16, 16)
    scaled = found.heatmaps * found.people.scores[:, None, None, None]
    for each in range(2):
        own = scaled[found.people.image == each]
        torch.testing.assert_close(slots[each, : len(own)], own)
        assert not slots[each, len(own) :].any()


@pytest.mark.parametrize("attention", ["release", "keys"])
def test_every_parameter_gets_a_gradient_and_so_it_does_without_anyone(attention: Attention) -> None:
    network = small(attention).train()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for people, moves in ((people_of([[3, 4], [9, 9], [2, 2]], [0, 1, 1]), True), (people_of([], []), False)):
        network.zero_grad(set_to_none=True)
        features = network.features(images)
        heatmaps = network.heatmaps(features, people)
        assert heatmaps.shape == (len(people.image), 5, 16, 16)
        (network.maps(features).square().mean() + (heatmaps - 0.3).square().sum()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        head = [p.grad.abs().sum() > 0 for p in network.gfd.parameters() if p.grad is not None]
        assert all(head) if moves else not any(head)


def test_folded_for_inference_it_finds_the_same() -> None:
    network = small()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        network.train().features(torch.randn(4, 3, 64, 64, dtype=torch.float64))
        before = network.eval().detect(images)
        after = network.deploy().detect(images)
    assert torch.equal(before.people.coords, after.people.coords)
    torch.testing.assert_close(before.heatmaps, after.heatmaps)


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"most": 0}, {"threshold": 1.0}, {"kernel": 4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Search(**wrong)  # type: ignore[arg-type]
    for field in ("keypoints", "channels", "output_size"):
        with pytest.raises(ValueError, match=f"{field}: got 0, expected at least 1"):
            DHRNet(backbone="hrnet_w18_small", **{field: 0})
        with pytest.raises(ConfigError, match=field):
            build({"type": "dhrnet", "backbone": "hrnet_w18_small", field: 0}, "network")
    with pytest.raises(ValueError, match="at least 16"):
        DualPath(8, 3)
    with pytest.raises(ValueError, match="'keys'"):
        DualPath(attention="key")  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", ["release", "keys"])
def test_mixed_precision_stays_near_and_has_gradients(attention: Attention) -> None:
    network = small(attention).float()
    features = torch.rand(2, 240, 8, 8)
    people = people_of([[1, 2], [3, 4], [5, 6]], [0, 1, 1])
    exact = probability(network.heatmaps(features, people))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = probability(network.heatmaps(features, people))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.0, atol=0.05)
    (rough - 0.3).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.gfd.parameters())
