"""JSON schemas of the files beside an exported network: the sidecar, and the report of parity."""

from typing import Any

_NUMBER = {"type": ["number", "null"]}
_FIGURES = {"type": "object", "additionalProperties": _NUMBER}
_COMPARED = {
    "type": "object",
    "required": ["largest", "mean", "cosine", "scale", "numbers"],
    "additionalProperties": _NUMBER,
}
_PORT: dict[str, Any] = {
    "type": "object",
    "required": ["shape", "dtype"],
    "additionalProperties": False,
    "properties": {
        "shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": {"type": "string"},
        "multiple": {"type": "integer", "minimum": 1},
        "smallest": {"type": "integer", "minimum": 1},
    },
}
_PORTS = {"type": "object", "additionalProperties": _PORT, "minProperties": 1}

_SIZES = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_ENGINES: dict[str, Any] = {
    "type": "object",
    "required": ["library", "version", "built_for", "sizes", "graphs"],
    "additionalProperties": False,
    "properties": {
        "library": {"enum": ["tensorrt", "tensorrt-rtx"]},
        "version": {"type": "string"},
        "built_for": {"type": "string"},
        "sizes": {"type": "object", "additionalProperties": {**_SIZES, "minItems": 3, "maxItems": 3}},
        "graphs": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["layers", "bytes", "profile", "onnx_sha256"],
                "additionalProperties": False,
                "properties": {
                    "layers": {"type": "integer", "minimum": 1},
                    "bytes": {"type": "integer", "minimum": 1},
                    "profile": {
                        "type": "object",
                        "additionalProperties": {"type": "array", "items": _SIZES, "minItems": 3, "maxItems": 3},
                    },
                    "onnx_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
            },
        },
    },
}

SIDECAR: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": [
        "format", "triptych", "task", "kind", "precision", "opset", "scan_form", "graphs", "before", "after", "run",
        "licence", "trained", "needs",
    ],
    "properties": {
        "format": {"const": 1},
        "triptych": {"type": "string"},
        "task": {"type": "string"},
        "kind": {"enum": ["onnx", "torch", "tensorrt", "tensorrt-rtx"]},
        "precision": {"enum": ["fp32", "fp16", "int8"]},
        "opset": {"type": ["integer", "null"]},
        "scan_form": {"enum": ["scan", "chunked", "node", None]},
        "graphs": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["file", "inputs", "outputs"],
                "additionalProperties": False,
                "properties": {"file": {"type": "string"}, "inputs": _PORTS, "outputs": _PORTS},
            },
        },
        "before": {"type": "object"},
        "after": {"type": "object"},
        "run": {
            "type": "object",
            "required": ["name", "config_hash", "step", "metric"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string"},
                "config_hash": {"type": "string"},
                "step": {"type": ["integer", "null"]},
                "metric": {"type": "object"},
            },
        },
        "licence": {"type": "string"},
        "trained": {"type": "boolean"},
        "needs": {"type": "object"},
        "engines": _ENGINES,
    },
}  # fmt: skip
"""Of ``model.json``, and of the text under ``triptych`` in an ONNX file."""

PARITY: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": [
        "format", "precision", "passed", "reasons", "samples", "split", "resized", "graphs", "metric", "bounds",
        "divergence", "versions",
    ],
    "properties": {
        "format": {"const": 1},
        "precision": {"enum": ["fp32", "fp16", "int8"]},
        "passed": {"type": "boolean"},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "samples": {"type": "integer", "minimum": 1},
        "split": {"type": "string"},
        "resized": {"type": "boolean"},
        "graphs": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["calls", "real", "outputs"],
                "properties": {
                    "calls": {"type": "integer", "minimum": 0},
                    "real": {"type": "boolean"},
                    "outputs": {"type": "object", "minProperties": 1, "additionalProperties": _COMPARED},
                    "driven": _COMPARED,
                    "float64": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "object",
                            "required": ["torch", "file"],
                            "additionalProperties": _COMPARED,
                        },
                    },
                },
            },
        },
        "metric": {
            "type": "object",
            "required": ["name", "before", "after"],
            "properties": {"name": {"type": "string"}, "before": _FIGURES, "after": _FIGURES},
        },
        "bounds": _FIGURES,
        "divergence": {"type": "object"},
        "versions": {"type": "object"},
    },
}  # fmt: skip
"""Of ``parity.json``."""
