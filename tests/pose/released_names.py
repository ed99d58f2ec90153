"""Names and shapes of the tensors in released checkpoints, written down from how the networks are described."""

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

MODULES = {2: 1, 3: 4, 4: 3}
"""Modules in each stage of an HRNet; each has as many branches as the stage's number says."""

BLOCKS = 4


def normalised(convolution: str, norm: str, shape: Shape) -> Shapes:
    """A convolution without bias and the BatchNorm behind it."""
    values = {f"{norm}.{name}": shape[:1] for name in ("weight", "bias", "running_mean", "running_var")}
    return {f"{convolution}.weight": shape, **values, f"{norm}.num_batches_tracked": ()}


def hrnet_shapes(width: int) -> Shapes:
    """An HRNet that ends in all branches of its last stage, the first of them ``width`` channels wide."""
    found = normalised("conv1", "bn1", (64, 3, 3, 3)) | normalised("conv2", "bn2", (64, 64, 3, 3))
    for block in range(BLOCKS):
        name, inputs = f"layer1.{block}", 256 if block else 64
        found |= normalised(f"{name}.conv1", f"{name}.bn1", (64, inputs, 1, 1))
        found |= normalised(f"{name}.conv2", f"{name}.bn2", (64, 64, 3, 3))
        found |= normalised(f"{name}.conv3", f"{name}.bn3", (256, 64, 1, 1))
    found |= normalised("layer1.0.downsample.0", "layer1.0.downsample.1", (256, 64, 1, 1))
    widths = [width * 2**i for i in range(4)]
    found |= normalised("transition1.0.0", "transition1.0.1", (width, 256, 3, 3))
    for number, (outputs, inputs) in enumerate(((widths[1], 256), (widths[2], widths[1]), (widths[3], widths[2])), 1):
        name = f"transition{number}.{number}.0"
        found |= normalised(f"{name}.0", f"{name}.1", (outputs, inputs, 3, 3))
    for stage, modules in MODULES.items():
        for module in range(modules):
            found |= _module(f"stage{stage}.{module}", widths[:stage])
    return found


def _module(name: str, widths: list[int]) -> Shapes:
    found: Shapes = {}
    for branch, width in enumerate(widths):
        for block in range(BLOCKS):
            for part in (1, 2):
                own = f"{name}.branches.{branch}.{block}"
                found |= normalised(f"{own}.conv{part}", f"{own}.bn{part}", (width, width, 3, 3))
    for to, outputs in enumerate(widths):
        for source, inputs in enumerate(widths):
            own = f"{name}.fuse_layers.{to}.{source}"
            if source > to:
                found |= normalised(f"{own}.0", f"{own}.1", (outputs, inputs, 1, 1))
            for step in range(to - source):
                shape = (outputs if step == to - source - 1 else inputs, inputs, 3, 3)
                found |= normalised(f"{own}.{step}.0", f"{own}.{step}.1", shape)
    return found


def cid_shapes(width: int, keypoints: int, channels: int) -> Shapes:
    """The backbone and both heads, without the dual path."""
    features = width * 15
    found = {f"backbone.{name}": shape for name, shape in hrnet_shapes(width).items()}
    return found | _biased(
        {
            "iia.keypoint_center_conv": (keypoints + 1, features, 1, 1),
            "gfd.conv_down": (channels, features, 1, 1),
            "gfd.c_attn.atn": (channels, features),
            "gfd.s_attn.atn": (channels, features),
            "gfd.s_attn.conv": (1, 3, 5, 5),
            "gfd.fuse_attn": (channels, 2 * channels, 1, 1),
            "gfd.heatmap_conv": (keypoints, channels, 1, 1),
        }
    )


def dhrnet_shapes(width: int, keypoints: int, channels: int) -> Shapes:
    """A DHRNet's."""
    both, path = channels + keypoints, "gfd.dual_relation"
    gates = {f"{path}.{name}.fc_layers": () for name in ("se_block1", "se_block2")} | {f"{path}.ca.fc": (1, 1)}
    plain: Shapes = {f"{path}.sa.conv1.weight": (1, 2, 7, 7)}
    for name, kernel in gates.items():
        plain |= {f"{name}.0.weight": (both // 16, both, *kernel), f"{name}.2.weight": (both, both // 16, *kernel)}
    joints = [f"{path}.{name}.kpts_conv_{part}" for name in ("kpts_relation", "kpts_relation_2") for part in "kqv"]
    biased: Shapes = dict.fromkeys(joints, (keypoints, keypoints, 1, 1)) | {
        "gfd.pre_heatmap_conv": (keypoints, channels, 1, 1),
        f"{path}.inst_kpt_conv": (keypoints, both, 1, 1),
        f"{path}.kpt_inst_conv": (channels, both, 1, 1),
        f"{path}.feat_fusion_conv": (channels, both, 1, 1),
    }
    return cid_shapes(width, keypoints, channels) | plain | _biased(biased)


def _biased(layers: Shapes) -> Shapes:
    return {
        name: shape
        for layer, weight in layers.items()
        for name, shape in ((f"{layer}.weight", weight), (f"{layer}.bias", weight[:1]))
    }
