# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hold a conversation of tests/lab/protocols.py, and take its steps on request.

converse.py start LAB SOCKET PROTOCOL FAMILY CLIENT SERVER
    Announce a connection, print what is expected as JSON, and wait in the background for requests at a Unix socket.
    LAB is the folder tests/lab; CLIENT and SERVER are process ids in the namespaces of the client and the server.
converse.py follow SOCKET
    Open the connection that was announced, and print "followed", or the error.
"""

import importlib.util
import json
import os
import signal
import socket
import sys

ADDRESSES = {
    "ipv4": ("10.1.0.2", "203.0.113.80", "203.0.113.1"),
    "ipv6": ("2001:db8:1::2", "2001:db8:ffff::80", "2001:db8:ffff::1"),
}
#: Seconds after which the conversation ends in any case.
LIFETIME = 3600


def load(lab, name):
    """Load a module of the lab without the lab itself, which needs pyroute2."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(lab, f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def start(lab, path, protocol, family, *processes):
    isolation, protocols = load(lab, "isolation"), load(lab, "protocols")
    client, server, outside = ADDRESSES[family]

    def host(address, process):
        network = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
        return protocols.Host(address, lambda: isolation.entered(network))

    conversation = protocols.PROTOCOLS[protocol](host(client, processes[0]), host(server, processes[1]), outside)
    conversation.announce()
    requests = socket.socket(socket.AF_UNIX)
    requests.bind(path)
    requests.listen()
    facts = {"expected": conversation.expected(), "related": conversation.related(), "port": conversation.control_port}
    print(json.dumps(facts), flush=True)
    if os.fork() == 0:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        signal.alarm(LIFETIME)
        serve(requests, conversation)


def serve(requests, conversation):
    while True:
        with requests.accept()[0] as request:
            if request.recv(64) == b"stop":
                return
            try:
                conversation.follow(timeout=1)
            except Exception as error:
                request.sendall(repr(error).encode())
            else:
                request.sendall(b"followed")


def ask(what, path):
    with socket.socket(socket.AF_UNIX) as request:
        request.connect(path)
        request.sendall(what.encode())
        print(request.recv(4096).decode())


if sys.argv[1] == "start":
    start(*sys.argv[2:])
else:
    ask(*sys.argv[1:])
