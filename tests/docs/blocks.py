"""The code blocks of README.md, CONTRIBUTING.md and docs/, and the command lines in them.

A block is shell if its fence says so, or if it is indented and one of its lines begins with a program of ``PROGRAMS``.
Lines of such a block that begin with no program are output or explanation.
"""

import ast
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent.parent
GENERATED = ("cli.md",)
"""Pages that a tool writes, with usage lines instead of commands."""
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in GENERATED),
)
PROGRAMS = r"(?:fbnetv5|make|git|cd|pip|accelerate|torchrun|tensorboard|comm|(?:\.venv/bin/)?python3?) [\w.'(-]"
LANGUAGES = {"sh": "shell", "python": "python", "json": "json", "yaml": "yaml", "text": "text", "": "text"}
"""Language of a block by the information of its fence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block: ``line`` is that of its first line of code in the page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """PAGE:LINE."""
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line: the words of the shell, without its comment."""

    where: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The command line."""
        return shlex.join(self.words)

    @property
    def arguments(self) -> tuple[str, ...] | None:
        """The arguments of ``fbnetv5``, which a launcher of processes may start; None for other programs."""
        return self.words[self.words.index("fbnetv5") + 1 :] if "fbnetv5" in self.words else None


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The code blocks of a page, those in lists too."""
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    found_blocks = []
    for token in tokens:
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            line = token.map[0] + (2 if token.type == "fence" else 1)
            language = LANGUAGES[token.info] if token.type == "fence" else language_of(token.content)
            found_blocks.append(Block(page=page, line=line, language=language, text=token.content))
    return tuple(found_blocks)


def language_of(text: str) -> str:
    """The language of an indented block."""
    if re.search(rf"^{PROGRAMS}", text, flags=re.MULTILINE):
        return "shell"
    if text.startswith(("import ", "from ")):
        return "python"
    if text.startswith("{"):
        return "json"
    return "yaml" if re.match(r"# yaml-language-server:|\w+:\n", text) else "text"


def commands(block: Block) -> list[Command]:
    """The command lines of a shell block; a backslash at the end of a line continues it."""
    lines = block.text.splitlines()
    found_commands = []
    for number, line in enumerate(lines):
        if re.match(PROGRAMS, line):
            while line.endswith("\\"):
                number += 1
                line = line[:-1] + lines[number].strip()
            words = tuple(shlex.split(line, comments=True))
            found_commands.append(Command(where=f"{block.page.name}:{block.line + number}", words=words))
    return found_commands


def all_blocks(language: str) -> list[Block]:
    """The blocks of all pages in one language."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def all_commands() -> list[Command]:
    """The command lines of all pages."""
    return [command for block in all_blocks("shell") for command in commands(block)]


def imports(tree: ast.Module) -> list[tuple[str, str | None]]:
    """(module, name or None) of every import."""
    pairs: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pairs += [(str(node.module), alias.name) for alias in node.names]
    return pairs
