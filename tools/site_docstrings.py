"""How the API pages read the docstrings: ``a, b: text`` under ``Args`` documents both parameters."""

import re
from typing import Any

import griffe

SHARED = re.compile(
    r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) +\S.*)*)$",
    re.MULTILINE,
)


def one_entry_each(docstring: str) -> str:
    """The docstring with an entry for every parameter: the first has the text, the others point to it."""

    def separated(match: re.Match[str]) -> str:
        first, *others = match["names"].split(", ")
        together = ", ".join(f"`{name}`" for name in others)
        entries = [f"{first}: (with {together}) {match['text']}", *(f"{name}: see `{first}`." for name in others)]
        return "\n".join(match["indent"] + entry for entry in entries)

    head, section, rest = docstring.partition("Args:\n")
    return head + section + SHARED.sub(separated, rest)


class ReadableDocstrings(griffe.Extension):
    """Rewrites the docstrings of functions and classes before anything parses them."""

    def on_instance(self, *, node: Any, obj: griffe.Object, **kwargs: Any) -> None:
        """A named tuple has attributes where others have parameters."""
        if not obj.docstring or not (obj.is_function or obj.is_class):
            return
        text = one_entry_each(obj.docstring.value)
        if isinstance(obj, griffe.Class) and any(str(base) == "NamedTuple" for base in obj.bases):
            text = text.replace("Args:\n", "Attributes:\n", 1)
        obj.docstring.value = text
