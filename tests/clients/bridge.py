#!/usr/bin/env python3
"""Mosquitto as a bridge to HearthMQ, with its defaults: messages go both ways, once, and messages
retained on one side are set, changed and cleared on the other.

    cargo build --release && tests/clients/bridge.py

Needs mosquitto and mosquitto-clients. run.py runs it as well. Exit code 0 if no cell says FAIL.
"""

import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from broker import ADMIN, Broker

PATIENCE = 60  # seconds
# Further lines of the configuration of each bridge, by the name of its row.
KINDS = {
    "defaults": [],
    "mqttv31": ["bridge_protocol_version mqttv31"],
    "mqttv50": ["bridge_protocol_version mqttv50"],
    "lasting": ["cleansession false"],
}
COLUMNS = ("live", "retained", "no loop")
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Failed(Exception):
    """The actual result in place of the expected one."""


def wait_for(what, is_there):
    """Waits until `is_there` returns true."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if is_there():
            return
        time.sleep(0.1)
    raise Failed(f"{what} did not come")


class Side:
    """One of the two brokers, as its clients see it."""

    def __init__(self, name, port, directory, *login):
        self.name, self.log = name, directory / f"{name}.log"
        self.options = ["-h", "127.0.0.1", "-p", str(port), *login]

    def publish(self, topic, *message):
        subprocess.run(["mosquitto_pub", *self.options, "-q", "1", "-t", topic, *message], check=True, timeout=PATIENCE)

    def listen(self):
        """Records everything that comes from now on."""
        command = ["mosquitto_sub", *self.options, "-q", "1", "-t", "b/#", "-F", "%t %p"]
        with self.log.open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def heard(self):
        return self.log.read_text().splitlines()

    def retained(self, topic):
        """Returns the retained message, or None."""
        command = ["mosquitto_sub", *self.options, "-t", topic, "-C", "1", "-W", "1", "-F", "%r %p"]
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE)
        said = said.stdout.decode().strip()
        return said.removeprefix("1 ") if said else None


def live(here, there):
    # The first messages are lost while the bridge is not connected yet.
    probe = f"b/probe/{here.name}"

    def has_come():
        here.publish(probe, "-m", "probe")
        return f"{probe} probe" in there.heard()

    wait_for(f"a message from {here.name}", has_come)
    for number in range(20):
        here.publish(f"b/live/{here.name}", "-m", str(number))
    wait_for("the last of 20 messages", lambda: f"b/live/{here.name} 19" in there.heard())


def retained(here, there):
    topic = f"b/kept/{here.name}"
    for value in ("first", "second"):
        here.publish(topic, "-r", "-m", value)
        wait_for(f"retained {value!r} of {here.name}", lambda: there.retained(topic) == value)
    here.publish(topic, "-r", "-n")
    wait_for(f"the end of what {here.name} has retained", lambda: there.retained(topic) is None)


def no_loop(sides):
    for side in sides:
        side.publish("b/end", "-m", side.name)
    for side in sides:
        wait_for("the end", lambda: {f"b/end {s.name}" for s in sides} <= set(side.heard()))
        # Each message once, on both sides, in order.
        for other in sides:
            numbers = [line.split()[1] for line in side.heard() if line.startswith(f"b/live/{other.name} ")]
            if numbers != [str(number) for number in range(20)]:
                raise Failed(f"{side.name} heard of {other.name}: {numbers}")
            kept = [line.split()[1:] for line in side.heard() if line.startswith(f"b/kept/{other.name}")]
            if kept != [["first"], ["second"], []]:
                raise Failed(f"{side.name} heard of what {other.name} retained: {kept}")
        if side.heard().count(f"b/end {sides[0].name}") != 1:
            raise Failed(f"{side.name} heard the end more than once")


@contextlib.contextmanager
def process(started):
    """Ends the process when the block ends."""
    try:
        yield started
    finally:
        started.terminate()
        started.wait(PATIENCE)


def run(broker, kind, directory):
    """Runs the cells of one row."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "user root",
        "connection hearthmq",
        f"address 127.0.0.1:{broker.ports['mqtt']}",
        f"remote_username {ADMIN}",
        f"remote_password {broker.password}",
        "topic b/# both",
        *KINDS[kind],
    ]
    (directory / "mosquitto.conf").write_text("\n".join(config) + "\n")
    log = directory / "mosquitto.log"
    with log.open("w") as output:
        mosquitto = subprocess.Popen([MOSQUITTO, "-c", directory / "mosquitto.conf"], stdout=output, stderr=output)
    cells = {}
    with process(mosquitto), contextlib.ExitStack() as listening:
        wait_for("mosquitto", lambda: "running" in log.read_text())
        sides = (
            Side("mosquitto", port, directory),
            Side("hearthmq", broker.ports["mqtt"], directory, "-u", ADMIN, "-P", broker.password),
        )
        for side in sides:
            listening.enter_context(process(side.listen()))
        there_and_back = ((sides[0], sides[1]), (sides[1], sides[0]))
        steps = (
            ("live", lambda: [live(*pair) for pair in there_and_back]),
            ("retained", lambda: [retained(*pair) for pair in there_and_back]),
            ("no loop", lambda: no_loop(sides)),
        )
        for column, step in steps:
            try:
                step()
                cells[column] = "ok"
            except (Failed, subprocess.SubprocessError) as failed:
                cells[column] = "FAIL"
                print(f"bridge {kind}, {column}: {failed}\n{log.read_text()}", file=sys.stderr)
                break
    return cells


def main():
    if not MOSQUITTO:
        raise SystemExit("mosquitto is not installed")
    failed = False
    print("| bridge |", *(f"{column} |" for column in COLUMNS))
    print("|---|" + "---|" * len(COLUMNS))
    for kind in KINDS:
        with Broker() as broker, tempfile.TemporaryDirectory() as directory:
            cells = run(broker, kind, pathlib.Path(directory))
        failed |= any(cells.get(column) != "ok" for column in COLUMNS)
        print(f"| {kind} |", *(f"{cells.get(column, '–')} |" for column in COLUMNS), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
