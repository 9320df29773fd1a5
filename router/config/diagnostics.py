"""A problem → file, line and column, the line quoted, a caret and a hint.

Rule: positions are looked up only when there is something to report, and no content of a file makes reporting fail.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unicodedata import east_asian_width

from router.config.findings import Finding, Severity, dotted
from router.config.positions import Positions, TextSpan

_WIDEST: Final = 120
_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE: Final = re.compile(r"Cannot declare (\(.*\)) twice")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem and where it is.

    ``line`` and ``column`` count from 1; ``path`` is the setting's, "" for the whole file. ``quoted`` is the line as it
    stands in the file, None when there is none or it may contain a secret; ``width`` is the number of characters that
    the caret underlines.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str | None = None
    severity: Severity = "error"
    quoted: str | None = None
    width: int = 1

    @property
    def headline(self) -> str:
        """The problem in one line, its position in front: what a log or a table shows."""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message}"

    def __str__(self) -> str:
        """The headline, the quoted line, and under it the caret with the hint."""
        if self.quoted is None:
            return self.headline if self.hint is None else f"{self.headline}\n      | {self.hint}"
        start = max(0, self.column - 1 - _WIDEST // 2) if len(self.quoted) > _WIDEST else 0
        before, text = self.quoted[start : self.column - 1], self.quoted[start : start + _WIDEST]
        carets = "^" * max(1, min(self.width, len(text) - len(before)))
        marks = f"{_blank(before)}{carets}" if self.hint is None else f"{_blank(before)}{carets} {self.hint}"
        return f"{self.headline}\n{self.line:>5} | {_printable(text)}\n      | {marks}"


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """Return all of them as text for a terminal, without colours and without a final newline."""
    return "\n".join(map(str, diagnostics))


def as_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """Return all of them as plain JSON values: file, line, column, path, message, hint, severity."""
    names = ("file", "line", "column", "path", "message", "hint", "severity")
    return [{name: getattr(diagnostic, name) for name in names} for diagnostic in diagnostics]


def locate(findings: Sequence[Finding], text: str, file: str) -> tuple[Diagnostic, ...]:
    """Return the findings with their places in the text, in the order in which they stand there."""
    if not findings:
        return ()
    positions = Positions(text)
    lines = text.split("\n")
    located = [
        _place(
            file,
            lines,
            positions.find(finding.path, finding.at),
            finding.message,
            path=dotted(finding.path),
            hint=finding.hint,
            severity=finding.severity,
            secret=finding.secret,
        )
        for finding in findings
    ]
    return tuple(sorted(located, key=lambda diagnostic: (diagnostic.line, diagnostic.column)))


def syntax_diagnostic(error: Exception, text: str, file: str) -> Diagnostic:
    """Return the problem of a text that ``tomllib`` refused with ``error``."""
    if isinstance(error, RecursionError):
        return Diagnostic(file, 1, 1, "", "not valid here: nested too deeply")
    message, span = str(error), _syntax_span(str(error), text)
    if "overwrite" in message or "twice" in message:
        span = Positions(text).repeated or span
    message = _TWICE.sub(lambda match: f"{dotted(literal_eval(match[1]))} is declared twice", _AT.sub("", message))
    message = message.replace("Cannot overwrite a value", "this was set before, and a value is set once")
    return _place(file, text.split("\n"), span, f"not valid TOML: {message[:1].lower()}{message[1:][:200]}")


def undecodable_diagnostic(data: bytes, error: UnicodeDecodeError, file: str) -> Diagnostic:
    """Return the problem of bytes that are not UTF-8, at the first that is not."""
    before = data[: error.start].decode("utf-8", "replace")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return Diagnostic(file, line, column, "", "not UTF-8 text, which TOML must be; save the file as UTF-8")


def _syntax_span(message: str, text: str) -> TextSpan:
    match = _AT.search(message)
    if match is None:
        return TextSpan(1, 1)
    if match[1] is not None:
        return TextSpan(int(match[1]), int(match[2]))
    lines = text.rstrip().split("\n")
    return TextSpan(len(lines), len(lines[-1].rstrip("\r")) + 1)


def _place(
    file: str,
    lines: Sequence[str],
    span: TextSpan,
    message: str,
    *,
    path: str = "",
    hint: str | None = None,
    severity: Severity = "error",
    secret: bool = False,
) -> Diagnostic:
    line = lines[span.line - 1].rstrip("\r") if span.line <= len(lines) else ""
    # An empty line is not worth quoting.
    quoted = None if secret or not line else line
    return Diagnostic(file, span.line, span.column, path, message, hint, severity, quoted, span.width)


def _printable(text: str) -> str:
    """Return the text with control characters shown as dots, because a terminal would act on them."""
    return "".join(char if char.isprintable() or char == "\t" else "·" for char in text)


def _blank(text: str) -> str:
    """Return spaces as wide as the text, so that the caret stands under the right character."""
    return "".join("\t" if char == "\t" else "  " if east_asian_width(char) in "WF" else " " for char in text)
