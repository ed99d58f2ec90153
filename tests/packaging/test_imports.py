"""What an import costs a user: no warning, no output, and nothing that only some of them need."""

import subprocess
import sys

# Each costs time or fails where its own partners do not fit; they are imported by whoever asks for them.
ONLY_WHEN_ASKED = (
    "spikingjelly.datasets",
    "torchaudio",
    "mamba_ssm",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "gradio",
)


def _python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_panels_warns_of_nothing() -> None:
    done = _python("import vision, snn, robust", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_loading_everything_registered_is_silent_and_leaves_optional_packages_alone() -> None:
    done = _python(
        "import sys\n"
        "from vision.engine.registry import load_all\n"
        "load_all()\n"
        f"early = [name for name in {ONLY_WHEN_ASKED!r} if name in sys.modules]\n"
        "sys.exit(f'imported too early: {early}' if early else 0)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
