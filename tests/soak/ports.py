# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The destination ports of the soak test. Each decides what may happen to a connection."""

from __future__ import annotations

#: No match covers these connections; only snapshots contain them.
KEPT = 7001
#: The flush removes these connections, so they may fail.
FLUSHED = 7002
#: Updates change the mark and the timeout of these connections.
UPDATED = 7003
#: These connections last as long as the test. Updates change them, and snapshots are restored over them.
STEADY = 7004

ALL = (KEPT, FLUSHED, UPDATED, STEADY)
#: The ports of new connections, each as often as clients use it.
TURNS = (KEPT, FLUSHED, KEPT, UPDATED)
