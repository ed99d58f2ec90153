"""Networks outside of training: exported, run by other runtimes, and measured."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime begins a record for its makers as it is imported
