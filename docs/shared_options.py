"""For mkdocstrings: what the models' decorators do when they run, done to what griffe reads.

`documented` writes the options of all models into a constructor; `Chosen` makes an attribute of a function.
"""

from __future__ import annotations

import ast
import textwrap
from typing import Any

import griffe

OPENING = "models.opening"  # where the options and their text are
ATTRIBUTES = "Chosen"
CONSTRUCTORS = "documented"


class SharedOptions(griffe.Extension):
    """Constructors with all their options, attributes as attributes."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change the classes below `models`, once all of the package is read."""
        opening = pkg[OPENING]
        # "Raises:" begins a line then, and what is before it is one level in, as a section of arguments wants it.
        text = textwrap.dedent(ast.literal_eval(str(opening["ARGUMENTS"].value))).strip("\n")
        source = opening["Source"]
        options = [
            griffe.Parameter(
                name,
                annotation=source[name].annotation,
                kind=griffe.ParameterKind.keyword_only,
                default=source[name].value,
            )
            for name in opening["LoadOptions"].attributes
        ]
        for module in pkg["models"].modules.values():
            for made in module.classes.values():
                if not made.is_alias:
                    _change(made, options, text)


def _change(made: griffe.Class, options: list[griffe.Parameter], text: str) -> None:
    own = {name: function for name, function in made.functions.items() if not function.is_alias}  # not inherited ones
    for name, function in own.items():
        decorators = {str(decorator.value) for decorator in function.decorators}
        if ATTRIBUTES in decorators:
            attribute = griffe.Attribute(
                name,
                lineno=function.lineno,
                endlineno=function.endlineno,
                annotation=function.returns,
                docstring=function.docstring,
            )
            made.set_member(name, attribute)
        if CONSTRUCTORS in decorators and function.docstring is not None:
            function.parameters = griffe.Parameters(
                *(entry for entry in function.parameters if entry.kind is not griffe.ParameterKind.var_keyword),
                *options,
            )
            lines = function.docstring.value.splitlines()
            place = next(k for k, line in enumerate(lines) if line.lstrip().startswith("**options"))
            function.docstring.value = "\n".join([*lines[:place], text, *lines[place + 1 :]])
