# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile the imports of a module once instead of twice.

Ansible sends a module and its imports to the target in a zip file, and Python compiles them in each task. Up to 3.13,
Python compiles them twice. To create the spec of a module, it requests the file name from the importer for zip files,
which compiles the module to find out whether its source is a `.py` or a `.pyc` file. To execute the module, it is
compiled again. This is most of the time that a task takes to start.

Only the time depends on this importer: in any unexpected situation, imports work as before.

Source: zipimport.zipimporter.get_filename and importlib.util.spec_from_loader in Python 3.8 to 3.13.
"""

from __future__ import annotations

import os
import sys
import zipimport


class SourceImporter(zipimport.zipimporter):
    """An importer for Python source in a zip file that returns the file name of a module without compiling it."""

    def get_filename(self, fullname: str) -> str:
        path = os.path.join(self.archive, self.prefix, fullname.rpartition(".")[2])
        return os.path.join(path, "__init__.py") if self.is_package(fullname) else f"{path}.py"


def compile_once() -> None:
    """Use `SourceImporter` for later imports from the folder of this file, and below it, if it is in a task's zip file.

    Modules that were imported before this call have been compiled twice.
    """
    # Ansible sets the path of the zip file in the module that it runs, which is __main__.
    payload = getattr(sys.modules.get("__main__"), "_modlib_path", None)
    if sys.version_info < (3, 14) and isinstance(payload, str):
        folder = os.path.dirname(__file__)
        if folder.startswith(payload + os.sep) and os.path.isfile(payload):
            _install(folder)


def _install(folder: str) -> None:
    def importer(path: str) -> SourceImporter:
        if path != folder and not path.startswith(folder + os.sep):
            raise ImportError(path)  # Python then uses the next importer
        return SourceImporter(path)

    sys.path_hooks.insert(0, importer)
    for path in list(sys.path_importer_cache):
        if path == folder or path.startswith(folder + os.sep):
            del sys.path_importer_cache[path]
