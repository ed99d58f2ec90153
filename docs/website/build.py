"""Builds the site: python docs/website/build.py -o site. It needs the extra `docs` and no network."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pages
from sphinx.cmd.build import build_main


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Build the documentation as a site that needs no network.")
    p.add_argument("-o", "--out", type=Path, default=Path("site"), help="folder to write (default: site)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Writes the pages; every warning is an error.

    Returns:
        Sphinx's exit status: 0 when there was nothing to warn of.
    """
    out = parser().parse_args(argv).out
    with TemporaryDirectory() as work:
        sources = Path(work) / "sources"
        sources.mkdir()
        pages.stage(sources)
        settings = str(Path(__file__).resolve().parent)
        strict = ["--fail-on-warning", "--fresh-env", "--quiet"]
        return build_main([*strict, "-c", settings, "-d", f"{work}/trees", str(sources), str(out)])


if __name__ == "__main__":
    sys.exit(main())
