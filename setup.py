"""What pyproject.toml cannot say: ``tools/`` installs as ``triptych``, and wheels carry ``configs/`` in ``vision``."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CONFIGS = Path("configs")
PANELS = ("vision", "snn", "robust")


class BuildWithConfigs(build_py):
    """Copies ``configs/**/*.yaml`` to ``vision/_configs``. An editable install reads ``configs/`` where it lies."""

    def run(self) -> None:
        if not self.editable_mode:
            for package in (*PANELS, "triptych"):  # what an earlier build left must not be shipped
                shutil.rmtree(Path(self.build_lib, package), ignore_errors=True)
        super().run()
        for source, target in self._configs().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + [str(target) for target in self._configs().values()]

    def _configs(self) -> dict[Path, Path]:
        if self.editable_mode:
            return {}
        shipped = Path(self.build_lib, "vision", "_configs")
        return {source: shipped / source.relative_to(CONFIGS) for source in sorted(CONFIGS.rglob("*.yaml"))}


setup(
    packages=[*find_packages(include=[f"{panel}{suffix}" for panel in PANELS for suffix in ("", ".*")]), "triptych"],
    package_dir={"triptych": "tools"},
    cmdclass={"build_py": BuildWithConfigs},
)
