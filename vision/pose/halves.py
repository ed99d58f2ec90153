"""DHRNet and CID as two exported graphs, and what runs between them."""

import torch
from torch import Tensor, nn

from vision.engine.deployment import Graph, Run
from vision.pose.dhrnet import Detections, DHRNet, ImageStage, People, PeopleStage
from vision.pose.finding import STRIDE


def graphs(network: DHRNet, images: Tensor) -> tuple[Graph, Graph]:
    """``image`` takes images and gives features, centres and the shared map; ``people`` makes heatmaps of people.

    Args:
        network: deployed.
        images: an example, shape ``[N, 3, H, W]``.
    """
    first, second = ImageStage(network).eval(), PeopleStage(network).eval()
    with torch.no_grad():
        features, _, shared = first(images)
    coords = torch.tensor([[1, 2], [5, 7], [9, 3]])
    vectors = features[0, :, coords[:, 0], coords[:, 1]].T
    size = {2: "h", 3: "w"}
    return (
        Graph(
            "image", first, (images,), ("image",), ("features", "centres", "shared"),
            {"image": {0: "N", 2: "H", 3: "W"}}, smallest=STRIDE,
        ),
        Graph(
            "people", second, (shared[:1].clone(), vectors.contiguous(), coords), ("shared", "vectors", "coords"),
            ("heatmaps",), {"shared": size, "vectors": {0: "P"}, "coords": {0: "P"}},
        ),
    )  # fmt: skip


class ExportedDHRNet(nn.Module):
    """The two graphs in the place of the network they are of.

    For :meth:`vision.pose.single_stage.SingleStagePose.predict`.

    Args:
        run: runs exported graphs.
        network: how centres are looked for is taken from it.
    """

    def __init__(self, run: Run, network: DHRNet) -> None:
        super().__init__()
        self.run, self.find, self.search, self.keypoints = run, network.find, network.search, network.keypoints

    def detect(self, images: Tensor, flip_index: list[int] | None = None) -> Detections:
        """As :meth:`DHRNet.detect`; the second graph runs once an image, and once for its mirror image."""
        features, centres, shared = self.run("image", images)
        people = self.find(centres)
        if flip_index is None:
            return Detections(self._heatmaps(features, shared, people), people)
        mirrored, other, beside = (x.flip(-1) for x in self.run("image", images.flip(-1)))
        people = self.find((centres + other) / 2)
        heatmaps = self._heatmaps(features, shared, people)
        return Detections((heatmaps + self._heatmaps(mirrored, beside, people)[:, flip_index]) / 2, people)

    def _heatmaps(self, features: Tensor, shared: Tensor, people: People) -> Tensor:
        parts = []
        for image in range(len(features)):
            coords = people.coords[people.image == image]
            if len(coords):
                vectors = features[image, :, coords[:, 0], coords[:, 1]].T.contiguous()
                parts.append(self.run("people", shared[image : image + 1].contiguous(), vectors, coords)[0])
        return torch.cat(parts) if parts else features.new_zeros(0, self.keypoints, *features.shape[-2:])
