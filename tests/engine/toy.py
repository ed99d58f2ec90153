"""A task small enough to check by hand: linear regression with noisy inputs, and an online variant."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vision.engine.data import DataModule, Sample
from vision.engine.prediction import Prediction
from vision.engine.task import Batch, Losses, Metric, StepContext, Task


class Points(Dataset[Sample]):
    """y = x w* with x seeded by index and, while training, noise from the global generator."""

    def __init__(self, size: int, noise: float, first: int = 0) -> None:
        self.size, self.noise, self.first = size, noise, first

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(index)
        x = torch.randn(3, generator=torch.Generator().manual_seed(self.first + index))
        y = x @ torch.tensor([1.0, -2.0, 0.5])
        return {"id": f"{index:04d}", "x": x + self.noise * torch.randn(3), "y": y}


class PointsData(DataModule):
    def __init__(self, size: int = 37, noise: float = 0.1, val_size: int = 11) -> None:
        self.size, self.noise, self.val_size = size, noise, val_size

    def train(self) -> Dataset[Sample]:
        return Points(self.size, self.noise)

    def val(self) -> Dataset[Sample]:
        return Points(self.val_size, 0.0, first=1000)

    def test(self) -> Dataset[Sample] | None:
        return Points(5, 0.0, first=2000)


class Value(Prediction):
    def __init__(self, id: str, value: float) -> None:
        super().__init__(id)
        self.value = value

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "value": self.value}


class MeanError(Metric):
    primary, mode = "error", "min"

    def measure(self, prediction: Value, batch: Batch, position: int) -> float:
        return abs(prediction.value - float(batch["y"][position]))

    def score(self, records: list[float]) -> dict[str, float]:
        return {"error": sum(records) / len(records)}


class Regression(Task):
    def __init__(self, data: PointsData | None = None, dropout: float = 0.0, network: nn.Module | None = None) -> None:
        super().__init__()
        self.data = data or PointsData()
        self.network = network or nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        error = self.network(batch["x"]).squeeze(1) - batch["y"]
        yield {"square": (error**2).mean(), "_largest": error.detach().abs().max()}

    def predict(self, batch: Batch) -> list[Value]:
        values = self.network(batch["x"]).squeeze(1).float()
        return [Value(i, float(v)) for i, v in zip(batch["id"], values, strict=True)]

    def metric(self) -> Metric:
        return MeanError()

    def example_input(self) -> Tensor:
        return torch.zeros(1, 3)


class OnlineRegression(Regression):
    """Yields half of the loss twice, as a rule over two time steps would."""

    online = True

    def training_step(self, batch: Batch, context: StepContext) -> Iterator[Losses]:
        for _ in range(2):
            error = self.network(batch["x"]).squeeze(1) - batch["y"]
            yield {"half": 0.5 * (error**2).mean()}
