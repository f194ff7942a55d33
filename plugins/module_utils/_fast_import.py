# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile what a module imports once, where Python would do it twice.

Ansible sends a module to the target in a zip file with all that it imports, and there Python compiles it anew in
each task. Up to 3.13 it does so twice: to make the spec of a module it asks the importer of zip files for
the module's file name, which compiles the module to see whether it has come from a `.py` or a `.pyc`, and to
execute the module it compiles it again. Most of what a task costs before it begins is that.

Nothing but the time depends on this: where anything is not as expected, imports go on as before.

Source: zipimport.zipimporter.get_filename and importlib.util.spec_from_loader in Python 3.8 to 3.13.
"""

from __future__ import annotations

import os
import sys
import zipimport


class SourceImporter(zipimport.zipimporter):
    """An importer of Python source in a zip file, which names a module's file without a look inside."""

    def get_filename(self, fullname: str) -> str:
        path = os.path.join(self.archive, self.prefix, fullname.rpartition(".")[2])
        return os.path.join(path, "__init__.py") if self.is_package(fullname) else f"{path}.py"


def compile_once() -> None:
    """Import what is beside and below this file through `SourceImporter`, if it is in the zip file of a task.

    What is imported before this is called has been compiled twice.
    """
    # Ansible tells the module that it runs, which is __main__ then, where the zip file is.
    payload = getattr(sys.modules.get("__main__"), "_modlib_path", None)
    if sys.version_info < (3, 14) and isinstance(payload, str):
        folder = os.path.dirname(__file__)
        if folder.startswith(payload + os.sep) and os.path.isfile(payload):
            _install(folder)


def _install(folder: str) -> None:
    def importer(path: str) -> SourceImporter:
        if path != folder and not path.startswith(folder + os.sep):
            raise ImportError(path)  # which has Python ask the next one
        return SourceImporter(path)

    sys.path_hooks.insert(0, importer)
    for path in list(sys.path_importer_cache):
        if path == folder or path.startswith(folder + os.sep):
            del sys.path_importer_cache[path]
