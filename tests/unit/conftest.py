# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep unit tests independent of the host."""

from __future__ import annotations

import socket
from typing import Iterator

import pytest

#: A minimal installation has no /etc/services.
SERVICES = {"domain": 53, "ftp": 21, "http": 80, "https": 443, "ssh": 22}


@pytest.fixture(autouse=True, scope="session")
def services() -> Iterator[None]:
    """Map the names of services to the same numbers on every host."""

    def number_of(name: str, protocol: str = "") -> int:
        try:
            return SERVICES[name]
        except KeyError:
            raise OSError("service/proto not found") from None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getservbyname", number_of)
        yield
