# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Sphinx extension that adds a reference to the page of the client's public names: signatures and docstrings.

The session `docs` loads it. Other builds of the documentation show the page without the reference.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).parents[1] / "plugins/module_utils/client"
PACKAGE = "ansible_collections.netops.conntrack.plugins.module_utils.client"
PAGE = "guide_client_names"
#: A name in the tables of the page.
NAME = re.compile(r"^    \* - ``(.+?)``$", re.MULTILINE)
TITLE = "Reference"
#: Short signatures: names without modules, and defaults as in the source.
CONFIGURATION = {
    "add_module_names": False,
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "autodoc_typehints_format": "short",
    "python_use_unqualified_type_names": True,
}
#: Code in a docstring.
CODE = re.compile(r"`([^`]+)`")


def module_of(name: str) -> str | None:
    """Return the module in a name such as `events.follower.Follower`; None if there is no such file."""
    steps = name.split(".")
    for number in range(1, len(steps) + 1):
        if CLIENT.joinpath(*steps[:number]).with_suffix(".py").is_file():
            return ".".join(steps[:number])
    return None


def found(name: str) -> Any:
    """Return the module, class or function of a name; None if it does not exist."""
    module = module_of(name)
    if module is None:
        return None
    thing: Any = importlib.import_module(f"{PACKAGE}.{module}")
    for step in name[len(module) + 1 :].split(".") if name != module else ():
        thing = getattr(thing, step, None)
    return thing


def reference(page: str) -> str:
    """Return the page with links from its tables to a reference at its end."""
    names = NAME.findall(page)
    linked = NAME.sub(rf"    * - :py:obj:`\1 <{PACKAGE}.\1>`", page)
    return (
        "\n".join(
            [linked.rstrip("\n"), "", TITLE, "-" * len(TITLE), "", ".. highlight:: none", "", *_directives(names)]
        )
        + "\n"
    )


def _directives(names: list[str]) -> Iterator[str]:
    """Yield a heading for each module, its docstring, and the docstrings of its names."""
    modules: dict[str, list[str]] = {}
    public = [found(name) for name in names]
    for name in names:
        module = module_of(name) or name
        modules.setdefault(module, []).extend([name] if name != module else [])
    for module, members in modules.items():
        heading = f"``{module}``"
        yield from (heading, "~" * len(heading), "", f".. automodule:: {PACKAGE}.{module}", "")
        for name in members:
            thing = found(name)
            if inspect.isclass(thing):
                # The members of bases that the reference does not describe
                described = [base.__name__ for base in thing.__mro__[1:] if base in public or not _is_own(base)]
                inherited = f"    :inherited-members: {', '.join(described)}"
                yield from (f".. autoclass:: {PACKAGE}.{name}", "    :members:", inherited, "")
            elif inspect.isfunction(thing):
                yield from (f".. autofunction:: {PACKAGE}.{name}", "")
            else:
                yield from (f".. autodata:: {PACKAGE}.{name}", "    :no-value:", "")


def _is_own(base: type) -> bool:
    return base.__module__.startswith(f"{PACKAGE}.")


def _extend(app: Any, docname: str, source: list[str]) -> None:
    if docname.rpartition("/")[2] == PAGE:
        source[0] = reference(source[0])


def _mark_code(app: Any, kind: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Write code as reStructuredText does: docstrings use single backquotes, as Markdown does."""
    lines[:] = CODE.sub(r"``\1``", "\n".join(lines)).split("\n")


def _skip(app: Any, kind: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Skip the fields of named tuples: the signature has them, and they have no docstrings of their own."""
    return True if str(inspect.getdoc(thing)).startswith("Alias for field number") else None


def _configure(app: Any, config: Any) -> None:
    for key, value in CONFIGURATION.items():
        setattr(config, key, value)


def setup(app: Any) -> dict[str, bool]:
    """Load the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("config-inited", _configure)
    app.connect("source-read", _extend)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _mark_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
