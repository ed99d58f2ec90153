"""DHRNet at inference, beside a plain reading of the released code: python benchmarks/dhrnet_inference.py.

An image of 512x512 pixels with 1, 5, 10 and 30 people, W32: from the image to everyone's heatmaps, and the part that
depends on people alone. The plain reading (``Plain`` below) has the same weights and does what the released code does,
less its writing of files: people are grouped by image through Python lists, maps are concatenated and gated as they are
written down, BatchNorm is a step of its own. Both take turns in one process; what counts is the median of the rounds'
ratios. Outputs are compared in the same run, in float64. Peak memory is that of a process of its own for each case.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds its siblings by the name tests use

from benchmarks.collect import RESULTS, check
from vision.engine.command import run_command
from vision.engine.environment import git_commit, machine_summary
from vision.engine.files import write_json
from vision.pose.dhrnet import DHRNet, People, probability
from vision.pose.relations import CrossJoint

SIDE = 512
PEOPLE = (1, 5, 10, 30)
AIM = 1 / 1.3
LARGEST_ERROR = 1e-8
"""Of a probability, in float64: in float32 fresh weights make logits so large that rounding alone moves some by 0.1."""
AGAINST = "a plain reading of the release"


class Plain:
    """The released code's forward pass, read out on the weights of ``network``.

    Args:
        network: in evaluation mode; its weights are shared.
    """

    def __init__(self, network: DHRNet) -> None:
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        first, *others = self.network.backbone(images)
        enlarged = [F.interpolate(b, size=first.shape[-2:], mode="bilinear", align_corners=False) for b in others]
        return torch.cat([first, *enlarged], 1)

    def people_part(self, features: Tensor, people: People) -> Tensor:
        gfd = self.network.gfd
        shared = gfd.conv_down(features)[people.image]
        vectors = features[people.image, :, people.coords[:, 0], people.coords[:, 1]]
        count, _, height, width = shared.shape
        by_channel = shared * gfd.c_attn.atn(vectors)[:, :, None, None].expand_as(shared)
        similarity = (shared * gfd.s_attn.atn(vectors)[:, :, None, None].expand_as(shared)).sum(1, keepdim=True)
        rows, columns = torch.meshgrid(
            torch.arange(height, device=shared.device), torch.arange(width, device=shared.device), indexing="ij"
        )
        cells = torch.stack((columns.reshape(-1), rows.reshape(-1)), 1).float()
        offsets = people.coords.flip(1).reshape(-1, 1, 2) - cells.reshape(1, -1, 2)
        offsets = (offsets.permute(0, 2, 1).float() / 32).reshape(count, 2, height, width)
        by_space = shared * gfd.s_attn.conv(torch.cat((similarity, offsets), 1)).sigmoid()
        cond = F.relu(gfd.fuse_attn(torch.cat((by_channel, by_space), 1)))
        if gfd.dual_path:
            cond = self.dual_path(cond, F.relu(gfd.pre_heatmap_conv(cond)), people.image, vectors)
        return probability(gfd.heatmap_conv(cond))

    def whole(self, images: Tensor, people: People) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return probability(self.network.maps(features)), self.people_part(features, people)

    def dual_path(self, cond: Tensor, joints: Tensor, image: Tensor, vectors: Tensor) -> Tensor:
        dim = self.network.gfd.dual_relation
        first = self.fused(dim.se_block1, dim.inst_kpt_conv, self.cross_instance(cond, image, vectors), joints)
        first = self.cross_joint(dim.kpts_relation, first, image)
        second = self.fused(
            dim.se_block2, dim.kpt_inst_conv, self.cross_joint(dim.kpts_relation_2, joints, image), cond
        )
        both = torch.cat((first, self.cross_instance(second, image, vectors)), 1)
        pooled = [dim.ca.fc(pool(both, 1)) for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)]
        both = (pooled[0] + pooled[1]).sigmoid() * both
        spatial = torch.cat((both.mean(1, keepdim=True), both.max(1, keepdim=True).values), 1)
        both = dim.sa.conv1(spatial).sigmoid() * both
        return F.relu(dim.feat_fusion_conv(both) + cond)

    @staticmethod
    def fused(gate: nn.Module, convolution: nn.Conv2d, first: Tensor, second: Tensor) -> Tensor:
        both = torch.cat((first, second), 1)
        weights = gate(F.adaptive_avg_pool2d(both, 1).flatten(1))
        return convolution(both * weights[:, :, None, None].expand_as(both))

    @staticmethod
    def groups(image: Tensor) -> list[slice]:
        """People of one image lie beside each other: the released code counts them."""
        slices, start = [], 0
        for count in Counter(image.cpu().numpy().tolist()).values():
            slices.append(slice(start, start + count))
            start += count
        return slices

    def cross_instance(self, maps: Tensor, image: Tensor, vectors: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        flat = maps.permute(1, 0, 2, 3).contiguous().view(channels, count, -1).contiguous()
        parts = []
        for own in self.groups(image):
            features, vector = flat[:, own], vectors[own]
            relation = torch.matmul(features, features.permute(0, 2, 1).contiguous()) / 128
            relation += torch.matmul(vector, vector.permute(1, 0).contiguous()) / 480.0
            parts.append(torch.matmul(F.softmax(relation, dim=0), features))
        rebuilt = torch.cat(parts, 1).view(channels, count, height, width).permute(1, 0, 2, 3).contiguous()
        rebuilt += maps
        return F.relu(rebuilt)

    def cross_joint(self, layer: CrossJoint, maps: Tensor, image: Tensor) -> Tensor:
        count, joints, height, width = maps.shape
        key, query, value = (
            convolution(maps).view(count, joints, -1).contiguous()
            for convolution in (layer.kpts_conv_k, layer.kpts_conv_q, layer.kpts_conv_v)
        )
        parts = []
        for own in self.groups(image):
            relation = torch.matmul(query[own], key[own].permute(0, 2, 1).contiguous()) / 128
            parts.append(torch.matmul(F.softmax(relation, dim=0), value[own]).view(-1, joints, height, width))
        rebuilt = torch.cat(parts)
        rebuilt += maps
        return F.relu(rebuilt)


class Ours:
    """The network as it is deployed: BatchNorm folded, channels-last backbone."""

    def __init__(self, network: DHRNet) -> None:
        self.network = network.deploy()
        self.network.backbone.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        return self.network.features(images.contiguous(memory_format=torch.channels_last))

    def people_part(self, features: Tensor, people: People) -> Tensor:
        return probability(self.network.heatmaps(features, people))

    def whole(self, images: Tensor, people: People) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return probability(self.network.maps(features)), self.people_part(features, people)


def network_of(device: torch.device) -> DHRNet:
    """W32 with weights that keep features in range and heads that are not constant."""
    torch.manual_seed(0)
    network = DHRNet().to(device)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train().features(torch.randn(2, 3, 128, 128, device=device))
    for module in (*network.gfd.modules(), network.iia.keypoint_center_conv):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return network.eval()


def people_of(count: int, device: torch.device) -> People:
    """So many people in one image, at places of their own."""
    cells = torch.randperm((SIDE // 4) ** 2, generator=torch.Generator().manual_seed(count))[:count]
    coords = torch.stack((cells // (SIDE // 4), cells % (SIDE // 4)), 1).to(device)
    return People(coords, torch.zeros(count, dtype=torch.int64, device=device), torch.ones(count, device=device))


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds: CPU time of this process, or wall-clock time of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - begun)
    begun = time.process_time()
    run()
    return 1000 * (time.process_time() - begun)


def compare(what: str, sides: tuple[Callable[[], Any], Callable[[], Any]], device: torch.device, rounds: int) -> Any:
    """A row: ours and theirs in turn."""
    for side in sides:
        timed(side, device)  # warm-up
    taken: list[list[float]] = []
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        found = {side: timed(sides[side], device) for side in order}
        taken.append([found[0], found[1]])
    ours, theirs = (statistics.median(r[side] for r in taken) for side in (0, 1))
    ratio = statistics.median(r[0] / r[1] for r in taken)
    print(f"{what}: {ours:.1f} ms, plain {theirs:.1f} ms, ratio {ratio:.3f}", flush=True)
    return {
        "what": what, "against": AGAINST, "ours": round(ours, 2), "theirs": round(theirs, 2), "ratio": round(ratio, 4),
        "aim": round(AIM, 4), "repeats": rounds,
    }  # fmt: skip


@torch.inference_mode()
def times(device: torch.device, rounds: int) -> tuple[list[Any], float]:
    """Rows of all cases, and the largest difference of any output in float64."""
    plain, ours = Plain(network_of(device)), Ours(network_of(device))
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(device)
    rows = []
    for count in PEOPLE:
        people, word = people_of(count, device), "person" if count == 1 else "people"
        sides = (lambda p=people: ours.whole(images, p), lambda p=people: plain.whole(images, p))
        rows.append(compare(f"image to heatmaps, {count} {word}", sides, device, rounds))
        maps = (ours.features(images), plain.features(images))
        sides = (
            lambda p=people, f=maps[0]: ours.people_part(f, p), lambda p=people, f=maps[1]: plain.people_part(f, p),
        )  # fmt: skip
        rows.append(compare(f"people part alone, {count} {word}", sides, device, rounds))
    return rows, difference(images.double(), device)


def difference(images: Tensor, device: torch.device) -> float:
    """The largest difference between outputs of both ways, in float64, BatchNorm folded in float64 too."""
    sides = Plain(network_of(device).double()), Ours(network_of(device).double())
    found = 0.0
    for count in PEOPLE:
        outputs = zip(*(way.whole(images, people_of(count, device)) for way in sides), strict=True)
        found = max(found, *(float((a - b).abs().max()) for a, b in outputs))
    return found


@torch.inference_mode()
def own_peak(side: str, count: int, device: torch.device) -> float:
    """Megabytes that one forward pass takes on top of weights and input, in this process."""
    network = network_of(device)
    way = Ours(network) if side == "ours" else Plain(network)
    images, people = torch.randn(1, 3, SIDE, SIDE).to(device), people_of(count, device)
    if device.type == "cuda":
        way.whole(images, people)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way.whole(images, people)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    way.whole(images[..., :64, :64], people._replace(coords=people.coords % 16))  # what is set up once
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest mark
    before = _memory("VmRSS")
    way.whole(images, people)
    return (_memory("VmHWM") - before) / 1024


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak(side: str, count: int, device: torch.device) -> float:
    """:func:`own_peak` in a process of its own, whose allocator gives memory back."""
    command = [sys.executable, __file__, "--peak", side, "--count", str(count), "--device", str(device)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def memory(device: torch.device) -> list[Any]:
    """Rows of peak memory."""
    rows = []
    for count in PEOPLE:
        ours, theirs = (peak(side, count, device) for side in ("ours", "plain"))
        print(f"peak memory, {count}: {ours:.0f} MB, plain {theirs:.0f} MB", flush=True)
        what = f"image to heatmaps, {count} {'person' if count == 1 else 'people'}"
        rows.append({
            "what": what, "against": AGAINST, "ours": round(ours, 1), "theirs": round(theirs, 1),
            "ratio": round(ours / theirs, 4), "aim": None, "repeats": 1,
        })  # fmt: skip
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Time DHRNet's inference beside a plain reading of the released code.")
    p.add_argument("--rounds", type=int, default=9, help="turns that each way takes, default: %(default)s")
    p.add_argument("--device", default="cpu", help="cpu or cuda, default: %(default)s")
    p.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR", help="where the two JSON files go")
    p.add_argument("--peak", choices=("ours", "plain"), help="print the peak memory of one case and end")
    p.add_argument("--count", type=int, default=1, help="people, with --peak")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    if arguments.peak:
        print(json.dumps(own_peak(arguments.peak, arguments.count, device)))
        return 0
    rows, worst = times(device, arguments.rounds)
    suffix = "" if device.type == "cpu" else "_gpu"
    about = {
        "command": f"python benchmarks/dhrnet_inference.py{'' if device.type == 'cpu' else ' --device cuda'}",
        "better": "lower",
        "machine": machine_summary(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    clock = "CPU time on one thread" if device.type == "cpu" else "wall-clock time"
    documents = {
        f"dhrnet_inference{suffix}": {
            "kind": "comparison", "title": f"DHRNet (W32) at inference, 512x512{', GPU' * bool(suffix)}", "unit": "ms",
            "note": f"Medians of {clock}, both ways in turn, float32, one image; ours with BatchNorm folded.",
            "rows": rows, "errors": [
                {"what": "largest difference of a probability from the plain reading's, in float64", "value": worst,
                 "aim": LARGEST_ERROR},
            ], **about,
        },
        f"dhrnet_memory{suffix}": {
            "kind": "comparison", "title": f"DHRNet (W32) at inference, peak memory{', GPU' * bool(suffix)}",
            "unit": "MB", "note": "On top of weights and input; a process for each case.", "rows": memory(device),
            **about,
        },
    }  # fmt: skip
    for name, document in documents.items():
        check(document, name)
        write_json(arguments.output / f"{name}.json", document)
        print(arguments.output / f"{name}.json")
    return 0


if __name__ == "__main__":
    run_command(main)
