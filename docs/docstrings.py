"""Docstrings in the reference: fields of pydantic models, and examples.

An extension of griffe, which reads the code without running it.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

from griffe import Alias, Attribute, Docstring, ExprCall, ExprKeyword, Extension, Module, Object

_CODE_BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n\n"
    r"(?P<code>(?:(?P=indent) +\S.*\n?|[ ]*\n)+)",
    re.MULTILINE,
)


def _fenced(found: re.Match[str]) -> str:
    code = textwrap.dedent(found["code"]).strip()
    block = f"```{found['language']}\n{code}\n```\n"
    return textwrap.indent(block, found["indent"])


def readable(text: str) -> str:
    """Write a docstring's examples as this site's tools read them.

    Args:
        text: The docstring.

    Returns:
        The same with fenced code, and with the heading of examples that griffe knows.
    """
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    return _CODE_BLOCK.sub(_fenced, text)


def _is_for_subclasses(attribute: Attribute) -> bool:
    """Say whether it is there for who writes an adapter, and not for who uses one."""
    if attribute.name in ("model_config", "origin"):
        return isinstance(attribute.value, ExprCall)
    # Griffe's way of saying ClassVar.
    is_class_variable = "instance-attribute" not in attribute.labels
    return is_class_variable and attribute.name in ("hidden", "others", "parts", "roles")


def _describe_field(attribute: Attribute) -> None:
    """Put the default and the description of a pydantic field in the place of its call."""
    call = attribute.value
    if not isinstance(call, ExprCall) or str(call.function) != "Field":
        return
    given = {one.name: one.value for one in call.arguments if isinstance(one, ExprKeyword)}
    first = next(iter(call.arguments), None)
    attribute.value = given.get("default", None if isinstance(first, ExprKeyword) else first)
    if attribute.docstring is None and "description" in given:
        words = ast.literal_eval(str(given["description"]))
        attribute.docstring = Docstring(words, parent=attribute)


class ReadableDocstrings(Extension):
    """Rewrites what a package's docstrings say, where this site would show it badly."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Take each object of a loaded package.

        Args:
            pkg: The package.
        """
        waiting: list[Object] = [pkg]
        while waiting:
            one = waiting.pop()
            if isinstance(one, Attribute):
                _describe_field(one)
            if one.docstring is not None:
                one.docstring.value = readable(one.docstring.value)
            for child in list(one.members.values()):
                if isinstance(child, Attribute) and _is_for_subclasses(child):
                    one.del_member(child.name)
            waiting += [child for child in one.members.values() if not isinstance(child, Alias)]
