"""A mistake in a file that people write: where it is, why it is one, and the fix."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.errors import ConfigError

Location = tuple[str | int, ...]
"""The keys and list indices that lead to a place in a document."""
MAX_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake. `code` is a stable slug with an entry in docs/diagnostics.md; line and column count from 1."""

    code: str
    file: str
    line: int
    column: int
    why: str
    fix: str = ""
    source: str = field(default="", compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.why} [{self.code}]"
        if self.source:
            number = f"{self.line:>5} | "
            # A file on one line, as JSON often is: show the part that the caret points at.
            cut = max(0, self.column - 1 - MAX_SHOWN // 2) if len(self.source) > MAX_SHOWN else 0
            shown = self.source[cut : cut + MAX_SHOWN]
            before = shown[: self.column - 1 - cut]
            indent = " " * len(number) + "".join("\t" if char == "\t" else " " for char in before)
            text += f"\n{number}{shown}\n{indent}{'^' * max(1, min(self.width, len(shown) - len(before)))}"
        return text + (f"\n      Fix: {self.fix}" if self.fix else "")

    @property
    def say(self) -> str:
        """One sentence for a person who does not have the file open: `Line 14: …`."""
        return f"Line {self.line}: {self.why}" + ("" if self.why.endswith(("?", ".")) else ".")

    def json(self) -> dict[str, Any]:
        return asdict(self)


class DocumentError(ConfigError):
    """Everything that is wrong with one document or several."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = list(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))


class Mistake(ValueError):
    """Raised inside a model's validators, or by a driver's `points` and `verbs`: a mistake with its own code and fix.

    `at` is its place below the thing that is being checked.
    """

    def __init__(self, code: str, why: str, fix: str = "", at: Location = ()) -> None:
        super().__init__(why)
        self.code, self.fix, self.at = code, fix, at


def unknown(word: str, known: Sequence[str]) -> tuple[str, str]:
    """(why, fix) for a word that is not among the known ones, with the nearest of them."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"`{word}` is unknown; did you mean `{near[0]}`?", f"Write `{near[0]}`."
    return f"`{word}` is unknown", f"Valid here: {', '.join(known)}." if known else "Remove it."


def sentence(why: str, fix: str) -> str:
    """Both behind each other, for a command line: it has no place to point at."""
    return f"{why}{'' if why.endswith(('?', '.')) else '.'} {fix}".rstrip()
