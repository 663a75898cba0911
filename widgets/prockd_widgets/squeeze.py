"""The scripts and style sheets as they are sent: without comments, indentation and idle spaces, else as written."""

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_IDLE = " *([=,;:?(){}\\[\\]<>&|!*%]) *"
_WORDS = re.compile(
    r"""(?P<comment>(?<![:\\])//[^\n]*)
    |(?P<keep>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"
        |(?<=[(,=:\[!&|?{};]) ?/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)
    |(?P<template>`)
    |(?P<code>[^'"`/]+|/)""",
    re.VERBOSE,
)


def static_text(name: str, kind: str) -> str:
    """What all widgets share and one widget's own, as one plain ES module or style sheet."""
    text = "".join((STATIC / f"{part}.{kind}").read_text(encoding="utf-8") for part in ("core", name))
    return squeeze(text) if kind == "js" else re.sub(r"\n\s*", "\n", text)


def squeeze(script: str) -> str:
    """The same ES module with fewer characters; strings, templates and regular expressions stay as they are."""
    out, at = [], 0
    while at < len(script):
        found = _WORDS.match(script, at)
        assert found, script[at : at + 60]
        at = found.end()
        if found["template"]:
            end = _end_of_template(script, at)
            out.append(script[found.start() : end])
            at = end
        elif found["keep"]:
            out.append(found["keep"])
        elif found["code"]:
            code = re.sub(r"[ \t]*\n\s*", "\n", found["code"])
            code = re.sub(r"(?<=[,;{(\[])\n|\n(?=[})\]])", "", code)
            out.append(re.sub(_IDLE, r"\1", re.sub(r"[ \t]+", " ", code)))
    return "".join(out)


def _end_of_template(script: str, at: int) -> int:
    """The place behind the closing backtick of a template, other templates inside it skipped."""
    depth = 0
    while True:
        if script.startswith("\\", at):
            at += 1
        elif script.startswith("${", at):
            depth, at = depth + 1, at + 1
        elif depth and script[at] == "{":
            depth += 1
        elif depth and script[at] == "}":
            depth -= 1
        elif script[at] == "`":
            at += 1
            if not depth:
                return at
            at = _end_of_template(script, at)
            continue
        at += 1
