"""Starts a HearthMQ on free ports for a test from outside, and stops it again.

Used by run.py and by the runners of external suites. The program is target/release/hearthmq,
or the one named by HEARTHMQ in the environment. Knows its command line and its log, but not MQTT.
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
        """`settings` are values for `--set`. Without a `policy` only ADMIN has permissions. With the
        `directory` of an earlier broker it continues with the data stored there."""
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
        """Returns the password of ADMIN."""
        return re.search(rf"^    {ADMIN}  (\S+)$", self.output.read_text(), re.MULTILINE)[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory)
