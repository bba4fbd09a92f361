"""Starts a HearthMQ for a test from outside, on ports that are free, and stops it again.

Used by run.py and by the runners of other people's suites. The program is target/release/hearthmq,
or what the environment's HEARTHMQ names. Knows its command line and its log, nothing of MQTT.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

BINARY = os.environ.get("HEARTHMQ", pathlib.Path(__file__).resolve().parents[2] / "target/release/hearthmq")
ADMIN = "admin"  # made by the first start, which says its password once
STARTED = "http"  # the listener that is bound last


class Broker:
    """A running broker. `ports` has the port of each scheme: mqtt, mqtts, ws, wss, http."""

    def __init__(self, *settings, policy=None, directory=None):
        """`settings` are what follows `--set`; without a `policy`, only ADMIN may do anything; with
        the `directory` of an earlier broker it goes on with what that has kept."""
        self.directory = directory or pathlib.Path(tempfile.mkdtemp(prefix="hearthmq-"))
        self.log, self.output = self.directory / "log", self.directory / "output"
        if policy:
            shutil.copy(policy, self.directory / "policy.toml")
        command = [BINARY, "run"]
        for setting in (f"data_dir={self.directory}", "mqtt.tcp=127.0.0.1:0", "http.listen=127.0.0.1:0", *settings):
            command += ["--set", setting]
        with self.log.open("w") as log, self.output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=log)
        self.ports = {}
        while STARTED not in self.ports:
            try:
                raise SystemExit(f"no broker: exit code {self.process.wait(0.02)}\n{self.log.read_text()}")
            except subprocess.TimeoutExpired:
                listening = re.findall(r"listening on (\w+)://.*:(\d+)", self.log.read_text())
                self.ports = {scheme: int(port) for scheme, port in listening}

    @property
    def password(self):
        """Of ADMIN."""
        return re.search(rf"^    {ADMIN}  (\S+)$", self.output.read_text(), re.MULTILINE)[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory)
