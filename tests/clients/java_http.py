#!/usr/bin/env python3
"""Calls the REST interface from Java: a thousand calls, one after another, by the JDK's HttpClient.

    cargo build --release && tests/clients/java_http.py

Needs a JDK of version 11 or later. run.py runs it as well. Exit code 0 if no call fails.
"""

import os
import pathlib
import socket
import subprocess
import sys

from broker import ADMIN, Broker

CALLS = 1000
PATIENCE = 300  # seconds
SCRIPT = pathlib.Path(__file__).resolve().with_name("HttpCalls.java")


def connect(port, password):
    """Connects a client `demo` whose Keep Alive can be changed. It sends nothing more, so it asks for a long one."""

    def text(value):
        return len(value).to_bytes(2, "big") + value

    flags, keep_alive = b"\xc2", (1200).to_bytes(2, "big")
    body = text(b"MQTT") + b"\x04" + flags + keep_alive + text(b"demo") + text(ADMIN.encode()) + text(password.encode())
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(b"\x10" + bytes([len(body)]) + body)
    assert stream.recv(4) == b"\x20\x02\x00\x00", "the client is not let in"
    return stream


def main():
    """Returns whether a call failed."""
    with Broker() as broker, connect(broker.ports["mqtt"], broker.password):
        environment = os.environ | {
            "URL": f"http://127.0.0.1:{broker.ports['http']}",
            "USERNAME": ADMIN,
            "PASSWORD": broker.password,
        }
        done = subprocess.run(["java", SCRIPT, str(CALLS)], env=environment, text=True, capture_output=True, timeout=PATIENCE)
        print("java.net.http.HttpClient:", *(done.stdout + done.stderr).splitlines(), sep="\n  ")
        return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
