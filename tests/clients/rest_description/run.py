#!/usr/bin/env python3
"""The description of the REST calls, and whether the program keeps to it.

    cargo build --release && tests/clients/rest_description/run.py

Redocly checks the document of a fresh program, without an error or a warning. Schemathesis makes calls of
all kinds from it, also wrong ones, with a fixed seed (SEED in the environment: another one): no answer
may be a 500, have a status or a header that is not described, or break its schema. Two clients stay
connected meanwhile. Calls that would send them away (kick, redirect) are not made here; dialogues in
tests/it/rest are about these.

Needs python3-venv, npm and mosquitto-clients. The tools come from their registries, in the versions below,
into target/clients. Exit code 0 if nothing is found; takes at most ten minutes.
"""

import os
import pathlib
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from broker import ADMIN, Broker  # noqa: E402

TARGET = HERE.parents[2] / "target/clients"
SCHEMATHESIS, REDOCLY = "schemathesis==4.32.5", "@redocly/cli@2.77.0"
SECONDS_MAX = 600
SEED = os.environ.get("SEED", "1")
# They send clients away, go on without end, lock the caller out or flood the log; and Schemathesis cannot write lines of
# JSON. They have tests of their own.
LEFT_OUT = ("kick", "kickClients", "redirect", "acceptClients", "importUsers", "messages", "logIn", "changeLog")


def install():
    def run(*command):
        subprocess.run(command, check=True, stdout=sys.stderr)

    TARGET.mkdir(parents=True, exist_ok=True)
    if not (TARGET / "venv").exists():
        run(sys.executable, "-m", "venv", TARGET / "venv")
    run(TARGET / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS)
    run("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", TARGET, REDOCLY)


def lint(url):
    document = TARGET / "openapi.json"
    document.write_bytes(urllib.request.urlopen(url).read())
    command = [TARGET / "node_modules/.bin/redocly", "lint", "--config", HERE / "redocly.yaml", document]
    return subprocess.run(command, env=os.environ | {"REDOCLY_TELEMETRY": "off"}, check=False).returncode


def client(broker, client_id):
    command = ["mosquitto_sub", "-p", str(broker.ports["mqtt"]), "-V", "5", "-c", "-x", "3600", "-q", "1"]
    command += ["-i", client_id, "-u", ADMIN, "-P", broker.password, "-t", f"{client_id}/#"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def call(broker, url):
    clients = [client(broker, client_id) for client_id in ("car-17", "demo")]
    command = [TARGET / "venv/bin/schemathesis", "--config-file", HERE / "schemathesis.toml"]
    command += ["run", url, "--auth", f"{ADMIN}:{broker.password}", "--seed", SEED]
    for operation in LEFT_OUT:
        command += ["--exclude-operation-id", operation]
    try:
        return subprocess.run(command, cwd=TARGET, timeout=SECONDS_MAX, check=False).returncode
    finally:
        for each in clients:
            each.terminate()
            each.wait()


def main():
    install()
    # The rate of calls is limited by default; Schemathesis makes them as fast as it can.
    with Broker("http.calls_per_account_per_sec=100000", "http.calls_per_address_per_sec=100000") as broker:
        url = f"http://127.0.0.1:{broker.ports['http']}/api/v1/openapi.json"
        faults = lint(url) or call(broker, url)
        if broker.process.poll() is not None:
            raise SystemExit(f"the program has ended\n{broker.log.read_text()[-4000:]}")
        return faults


if __name__ == "__main__":
    sys.exit(main())
