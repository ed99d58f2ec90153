"""What pyproject.toml cannot say: compiled kernels, ``tools/`` as ``triptych``, and ``configs/`` inside wheels.

``TRIPTYCH_BUILD`` says which kernels are built: ``auto`` (the default) builds those it can and says what it leaves out,
``cuda`` and ``cpu`` stop when they cannot be built, ``none`` builds none. They are compiled against the PyTorch of the
environment that builds, so build isolation has to be off: ``pip install --no-build-isolation -e .``
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

CONFIGS = Path("configs")
PANELS = ("vision", "snn", "robust")

CHOICES = ("auto", "cuda", "cpu", "none")
HOW = "pip install --no-build-isolation -e ."
SCAN = Path("vision", "ops", "selective_scan")
SOURCES = SCAN / "csrc"
REPORT = "_build.json"
TORCH_TARGET = "0x020a000000000000"  # LibTorch's stable ABI as of 2.10: one library serves that release and later ones
CUDA_ARCHITECTURES = "8.0;9.0+PTX"


# ---- What can be built ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Build:
    """What is to be built, or was; written beside the kernels so that it can be told later.

    Attributes:
        asked: the value of ``TRIPTYCH_BUILD``.
        built: ``cuda`` (which includes the CPU), ``cpu`` or ``none``.
        reason: why it is not more; empty when nothing is missing or nothing more was asked for.
        torch: the version of PyTorch that was compiled against.
        toolkit: the folder of the CUDA toolkit.
    """

    asked: str
    built: str
    reason: str = ""
    torch: str = ""
    toolkit: str = ""


def plan() -> tuple[Build, ModuleType | None]:
    """What this machine can build of what was asked for, and PyTorch's build tools where they are needed."""
    asked = os.environ.get("TRIPTYCH_BUILD") or "auto"
    if asked not in CHOICES:
        sys.exit(f"error: TRIPTYCH_BUILD={asked} is not one of {', '.join(CHOICES)}")
    if asked == "none":
        return Build(asked, "none"), None
    if not any(SOURCES.glob("*.cpp")):
        return _less(Build(asked, "none", f"{SOURCES} holds no sources")), None
    if not compiler():
        return _less(Build(asked, "none", "there is no C++ compiler (set CXX, or install g++)")), None
    try:
        import torch
        from torch.utils import cpp_extension
    except Exception as error:
        found = f"torch cannot be imported where kernels are built ({error}); install torch, then: {HOW}"
        return _less(Build(asked, "none", found)), None
    build = Build(asked, "cpu", torch=torch.__version__)
    if asked == "cpu":
        return build, cpp_extension
    if not any((SOURCES / "cuda").glob("*.cu")):
        return _less(replace(build, reason="there are no CUDA sources")), cpp_extension
    if torch.version.hip:
        return _less(replace(build, reason="this torch is built for ROCm, not CUDA")), cpp_extension
    home = toolkit()
    if home is None:
        missing = "no CUDA toolkit: set CUDA_HOME to the folder that holds bin/nvcc and include/cuda_runtime.h"
        return _less(replace(build, reason=missing)), cpp_extension
    return replace(build, built="cuda", toolkit=str(home)), cpp_extension


def _less(build: Build) -> Build:
    """Passes on less than was wanted, loudly; stops when it was asked for by name."""
    if build.asked in ("cuda", "cpu") and build.built != build.asked:
        sys.exit(f"error: TRIPTYCH_BUILD={build.asked}: {build.reason}")
    left_out = "compiled kernels" if build.built == "none" else "CUDA kernels"
    print(f"Triptych: {left_out} are left out: {build.reason}", file=sys.stderr)
    return build


def compiler() -> str | None:
    """The C++ compiler, which the environment is told too."""
    asked = os.environ.get("CXX")
    for name in [asked] if asked else ["c++", "g++", "clang++"]:
        if shutil.which(name.split()[0]):
            os.environ["CXX"] = name
            return name
    return None


def toolkit() -> Path | None:
    """The CUDA toolkit; where nvcc is a script that calls another one, that one's."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    named = len(homes)
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        dry = subprocess.run([nvcc, "-dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
        homes += [Path(top) for top in re.findall(r"^#\$ TOP=(.+?)\s*$", dry.stderr, re.MULTILINE)]
        homes += [Path(nvcc).parents[1], Path(nvcc).resolve().parents[1]]
    homes.append(Path("/usr/local/cuda"))
    parts = ("bin/nvcc", "include/cuda_runtime.h")
    found = next((home for home in homes if all((home / part).exists() for part in parts)), None)
    if named and found not in homes[:named]:
        instead = f"{found} is used" if found else "nor is there another"
        print(f"Triptych: CUDA_HOME={homes[0]} holds no CUDA toolkit; {instead}", file=sys.stderr)
    return found.resolve() if found else None


# ---- How it is built ------------------------------------------------------------------------------------------------


def extension(build: Build, torch_tools: ModuleType) -> Extension:
    """The library of operators: no Python in it, so that it is loaded by path whatever the interpreter."""
    relative = f"-ffile-prefix-map={Path.cwd()}/="  # messages name files of the package, not of this machine
    cxx = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", relative]
    defines, libraries, folders = [("TORCH_TARGET_VERSION", TORCH_TARGET)], ["torch_cpu", "c10"], []
    patterns = ["*.cpp", "cpu/*.cpp"]
    if build.built == "cuda":
        home = Path(build.toolkit)
        torch_tools.CUDA_HOME = build.toolkit  # unset where torch has no CUDA, and wrong where nvcc is a script
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES)
        patterns += ["cuda/*.cu", "cuda/*.cpp"]
        defines.append(("TRIPTYCH_CUDA", "1"))
        libraries += ["cudart_static", "dl", "rt", "pthread"]
        libraries_of = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")
        folders = [str(home / name) for name in libraries_of if (home / name / "libcudart_static.a").exists()]
    include = [str(SOURCES.resolve()), *torch_tools.include_paths()]
    return Extension(
        "vision.ops.selective_scan._kernels",
        sources=sorted(str(path) for pattern in patterns for path in SOURCES.glob(pattern)),
        depends=sorted(str(path) for path in SOURCES.rglob("*.*h")),
        include_dirs=include + ([str(Path(build.toolkit, "include"))] if build.built == "cuda" else []),
        define_macros=defines,
        library_dirs=[*torch_tools.library_paths(), *folders],
        libraries=libraries,
        extra_compile_args={"cxx": cxx, "nvcc": ["-O3", "-std=c++17", f"-Xcompiler=-fvisibility=hidden,{relative}"]},
        extra_link_args=["-s", "-Wl,--as-needed", "-Wl,--exclude-libs,ALL"] if sys.platform == "linux" else [],
        language="c++",
        py_limited_api=True,
    )


def write_report(build: Build, folder: Path) -> None:
    """Writes what was built beside where the kernels are looked for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps(asdict(build), indent=2) + "\n")


def build_kernels(build: Build, torch_tools: ModuleType) -> type[build_ext]:
    """The command that compiles; with ``auto`` a failure leaves out what failed, and is told."""

    class BuildKernels(torch_tools.BuildExtension):  # type: ignore[name-defined,misc]
        def run(self) -> None:
            self._start = (self.compiler, self.inplace)
            done = BuildPackages.build = self._attempt(build)  # what is reported, whichever command comes last
            if done.built == "none":
                self.extensions = []  # nothing was made, so nothing is to be copied or listed
            write_report(done, SCAN if self.inplace else Path(self.build_lib) / SCAN)

        def _attempt(self, wanted: Build) -> Build:
            try:
                super().run()
                return wanted
            except (Exception, SystemExit) as error:
                self.compiler, self.inplace = self._start  # as a failed attempt does not leave them
                if wanted.asked != "auto":
                    sys.exit(f"error: TRIPTYCH_BUILD={wanted.asked}: the kernels do not compile: {error}")
                failed = f"the {wanted.built.upper()} kernels do not compile ({' '.join(str(error).split())[:300]})"
                if wanted.built == "cuda":
                    less = replace(wanted, built="cpu", reason=failed, toolkit="")
                    self.extensions = [self._prepared(extension(less, torch_tools))]
                    return self._attempt(_less(less))
                remove_kernels()
                return _less(replace(wanted, built="none", reason="; ".join(filter(None, (wanted.reason, failed)))))

        def _prepared(self, other: Extension) -> Extension:
            """An extension with what the command's start gives to each."""
            (first,) = self.extensions
            for name in ("_full_name", "_links_to_dynamic", "_needs_stub", "_file_name"):
                setattr(other, name, getattr(first, name))
            return other

    return BuildKernels


def remove_kernels() -> None:
    """Removes what an earlier build left in the source tree."""
    for path in SCAN.glob("_kernels*"):
        path.unlink()


class BuildPackages(build_py):
    """Copies ``configs/**/*.yaml`` to ``vision/_configs``. An editable install reads ``configs/`` where it lies."""

    build: Build

    def run(self) -> None:
        if not self.editable_mode:
            for package in (*PANELS, "triptych"):  # what an earlier build left must not be shipped
                shutil.rmtree(Path(self.build_lib, package), ignore_errors=True)
        super().run()
        for source, target in self._configs().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if not self.editable_mode:
            write_report(self.build, Path(self.build_lib) / SCAN)
        elif self.build.asked == "none":
            remove_kernels()
            write_report(self.build, SCAN)
        elif not any(SCAN.glob("_kernels*")) or not (SCAN / REPORT).exists():
            write_report(self.build, SCAN)  # else the kernels of an earlier build stay, with their report

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        made = [str(target) for target in self._configs().values()]
        if not self.editable_mode:
            made.append(str(Path(self.build_lib) / SCAN / REPORT))
        return super().get_outputs(include_bytecode) + made

    def _configs(self) -> dict[Path, Path]:
        if self.editable_mode:
            return {}
        shipped = Path(self.build_lib, "vision", "_configs")
        return {source: shipped / source.relative_to(CONFIGS) for source in sorted(CONFIGS.rglob("*.yaml"))}


def main() -> None:
    """Hands everything to setuptools."""
    build, torch_tools = plan()
    BuildPackages.build = build
    compiled = {}
    if torch_tools is not None:
        compiled = {
            "ext_modules": [extension(build, torch_tools)],
            "options": {"bdist_wheel": {"py_limited_api": "cp311"}},
        }
    setup(
        packages=[*find_packages(include=[f"{panel}{tail}" for panel in PANELS for tail in ("", ".*")]), "triptych"],
        package_dir={"triptych": "tools"},
        cmdclass={
            "build_py": BuildPackages,
            **({"build_ext": build_kernels(build, torch_tools)} if torch_tools is not None else {}),
        },
        **compiled,
    )


if __name__ == "__main__":  # as build back ends run it
    main()
