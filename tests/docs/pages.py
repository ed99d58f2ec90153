"""The pages and what stands in them: code blocks, commands, words in code style."""

import re
import shlex
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language on a page."""
    return [text for found, text in _FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def words(page: Path) -> list[str]:
    """What stands in code style between blocks; links' texts too."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's ``sh`` blocks as words, without comments and redirections."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            if command:
                found.append(command[: command.index(">")] if ">" in command else command)
    return found


def every_command() -> list[tuple[Path, list[str]]]:
    """The commands of all pages, each with its page."""
    return [(page, command) for page in PAGES for command in commands(page)]


def tool_of(command: list[str]) -> tuple[str, list[str]] | None:
    """The name of the tool that a command runs and its arguments; None where it runs none."""
    rest = command[1:]
    if command[0] == "torchrun":
        while rest and not rest[0].endswith(".py"):
            rest = rest[1:] if "=" in rest[0] else rest[2:]
    elif command[0] == "triptych":
        rest = [f"tools/{rest[0]}.py", *rest[1:]]
    elif command[0] != "python":
        return None
    script = Path(rest[0])
    return (script.stem, rest[1:]) if script.parent == Path("tools") else None
