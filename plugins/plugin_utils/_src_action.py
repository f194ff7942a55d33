# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base class of actions that read a declaration from a file on the controller.

The declaration is transferred to the target as a separate file, not as an argument of the module. Arguments are part
of the module's program, which Python parses slowly, and they are returned with the result.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault, shown
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, nothing_changed

from ._src_task import read_with


class DeclaringAction(ActionBase):
    """Runs the module of the same name. Its `src` may be a file on the controller."""

    _supports_async = True
    _supports_check_mode = True
    #: The module, the option that `src` replaces, and every key of its result if nothing was done.
    MODULE: ClassVar[str]
    DECLARED: ClassVar[str]
    NOTHING_DONE: ClassVar[dict[str, Any]]

    def arguments(self) -> dict[str, Any]:
        """The arguments of the module. Raises `SourceFault` before a connection to the host."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            arguments = self.arguments()
        except InvalidValue as fault:
            message = nothing_changed(str(fault))
            return {"changed": False, **self.NOTHING_DONE, "failed": True, "msg": message}
        wrap_async = bool(self._task.async_val)
        result: dict[str, Any] = self._execute_module(
            self.MODULE, arguments, task_vars=task_vars, wrap_async=wrap_async
        )
        return result

    def own_source(self) -> str | None:
        """The path of the option `src` on the controller. None without the option, or with a file on the target."""
        given = self._task.args
        if given.get("src") is None or given.get(self.DECLARED) is not None:
            return None  # the module reports that both are set
        try:
            if boolean(given.get("remote_src", False)):
                return None
        except TypeError:
            raise SourceFault(f"remote_src: {shown(given['remote_src'])} is neither; write true or false") from None
        if not isinstance(given["src"], str) or not given["src"]:
            raise SourceFault(f"src: {shown(given['src'])} is no path; write that of a file")
        try:
            path: str = self._find_needle("files", given["src"])
        except AnsibleError as error:
            raise SourceFault(f"src: {' '.join(str(error).split())}") from error
        return path

    def loaded(self, path: str) -> list[Any]:
        """The documents in a file on the controller."""
        try:
            return read_with(self._loader, path)
        except AnsibleError as error:  # such as a wrong vault password
            raise SourceFault(f"{path}: {' '.join(str(error).split())}") from error

    def sent(self, text: str, name: str) -> dict[str, Any]:
        """Copy a text to a temporary file on the target. Returns the arguments that name the file."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        path = shell.join_path(shell.tmpdir, name)
        self._transfer_data(path, text)
        self._fixup_perms2((shell.tmpdir, path))
        return {"src": path, "remote_src": True}
