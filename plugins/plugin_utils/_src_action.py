# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base classes of actions whose module reads a file, which may be on the controller.

The content is transferred to the target as a separate file, not as an argument of the module. Arguments are part of the
module's program, which Python parses slowly, and they are returned with the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault, shown
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, nothing_changed

from ._src_task import in_a_line, read_with


class SourceAction(ActionBase):
    """Runs the module of the same name. One of its options may name a file on the controller."""

    _supports_async = True
    _supports_check_mode = True
    #: The module, the option that names a file, and every key of its result if nothing was done.
    MODULE: ClassVar[str]
    SOURCE: ClassVar[str]
    NOTHING_DONE: ClassVar[dict[str, Any]]

    def arguments(self) -> dict[str, Any]:
        """The arguments of the module. Raises `SourceFault` before a connection to the host."""
        raise NotImplementedError

    def message(self, fault: InvalidValue) -> str:
        """The message of a task that ended before the module ran."""
        return f"{fault}."

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            arguments = self.arguments()
        except InvalidValue as fault:
            return {"changed": False, **self.NOTHING_DONE, "failed": True, "msg": self.message(fault)}
        wrap_async = bool(self._task.async_val)
        folder, is_started = self._connection._shell.tmpdir, False
        try:
            result: dict[str, Any] = self._execute_module(
                self.MODULE, arguments, task_vars=task_vars, wrap_async=wrap_async
            )
            is_started = "ansible_job_id" in result
        finally:
            # A job removes the folder at its end. If it has not been started, Ansible would leave the folder
            if wrap_async and not is_started and folder:
                self._remove_tmp_path(folder)
        return result

    def own_source(self) -> str | None:
        """The path of the file on the controller. None without the option, or with a file on the target."""
        given = self._task.args
        name = given.get(self.SOURCE)
        if name is None:
            return None
        if name == "":
            raise SourceFault(f"{self.SOURCE}: '' is not a path; write the path of a file")
        try:
            if boolean(given.get("remote_src", False)):
                return None
        except TypeError:
            raise SourceFault(f"remote_src: {shown(given['remote_src'])} is neither; write true or false") from None
        if not isinstance(name, str):
            raise SourceFault(f"{self.SOURCE}: {shown(name)} is not a path; write the path of a file")
        try:
            path: str = self._find_needle("files", name)
        except AnsibleError as error:
            raise SourceFault(f"{self.SOURCE}: {in_a_line(error)}") from error
        return path

    def sent(self, name: str, transfer: Callable[[str], object]) -> dict[str, Any]:
        """Create a temporary file on the target. Returns the arguments that name it.

        :param transfer: Writes the content to a path on the target.
        """
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        path = shell.join_path(shell.tmpdir, name)
        transfer(path)
        self._fixup_perms2((shell.tmpdir, path))
        return {self.SOURCE: path, "remote_src": True}


class DeclaringAction(SourceAction):
    """Parses the file on the controller, and sends the declaration in it."""

    SOURCE = "src"
    #: The option that `src` replaces.
    DECLARED: ClassVar[str]

    def message(self, fault: InvalidValue) -> str:
        return nothing_changed(str(fault))

    def own_source(self) -> str | None:
        if self._task.args.get(self.DECLARED) is not None:
            return None  # the module reports that both are set
        return super().own_source()

    def loaded(self, path: str) -> list[Any]:
        """The documents in a file on the controller."""
        return read_with(self._loader, path)

    def sent_text(self, text: str, name: str) -> dict[str, Any]:
        """Copy a text to a temporary file on the target. Returns the arguments that name the file."""
        return self.sent(name, lambda path: self._transfer_data(path, text))
