"""A stand-in for the module ``tensorrt``: it keeps what it is told, and its engines double their input on the CPU."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "10.99"
PLAN = b"engine of the stand-in"


class ILogger:
    ERROR = 1


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 3


class BuilderFlag:
    TF32 = "tf32"


class TensorIOMode:
    INPUT, OUTPUT = "in", "out"


def nptype(kind: str) -> type:
    return {"float": np.float32}[kind]


class Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


class Config:
    def __init__(self) -> None:
        self.cleared: list[str] = []
        self.profiles: list[Any] = []
        self.cache: Any = None

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile)

    def create_timing_cache(self, content: bytes) -> Cache | None:
        return None if content == b"damaged" else Cache(content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not ignore_mismatch

    def get_timing_cache(self) -> Cache:
        return self.cache  # type: ignore[no-any-return]


class Profile(dict[str, Any]):
    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self[name] = (low, best, high)


class Builder:
    last: "Builder"
    plan: bytes | None = PLAN
    says = ""

    def __init__(self, logger: Any) -> None:
        self.logger, self.config, self.flags = logger, Config(), 0
        Builder.last = self

    def create_network(self, flags: int) -> Any:
        self.flags = flags
        return SimpleNamespace(num_layers=7)

    def create_builder_config(self) -> Config:
        return self.config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        if self.says:
            self.logger.log(ILogger.ERROR, self.says)
        return self.plan


class OnnxParser:
    errors: tuple[tuple[str, str, str], ...] = ()

    def __init__(self, network: Any, logger: Any) -> None:
        self.num_errors = len(self.errors)

    def parse(self, content: bytes) -> bool:
        return not self.errors

    def get_error(self, number: int) -> Any:
        operator, node, said = self.errors[number]
        return SimpleNamespace(node_operator=lambda: operator, node_name=lambda: node, desc=lambda: said)


class Context:
    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(self.shape))
        given, found = ((ctypes.c_float * count).from_address(self.addresses[key]) for key in ("image", "logits"))
        for place in range(count):
            found[place] = 2 * given[place]
        return True


class Engine:
    num_io_tensors = 2

    def create_execution_context(self) -> Context:
        return Context()

    def get_tensor_name(self, number: int) -> str:
        return ("image", "logits")[number]

    def get_tensor_mode(self, name: str) -> str:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return "float"


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        if content != PLAN:
            self.logger.log(ILogger.ERROR, "magic tag does not match")
            return None
        return Engine()
