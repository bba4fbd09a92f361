#!/usr/bin/env python3
"""Real clients against HearthMQ: a table of the features of each, in MQTT 3.1.1 and 5.0, over
every transport that it has.

    cargo build --release && tests/clients/run.py [CLIENT …]

Ends with `bridge`, `java` and `proxies`, which have separate tables: bridge.py, java_http.py, proxies.py.

Needs python3-venv, nodejs, npm, a JDK, mosquitto, mosquitto-clients, nginx, haproxy, fail2ban, openssl and cargo. The clients come from their
registries, in the versions below, into target/clients. Exit code 0 if no cell says FAIL.

The environment of a client's script has: URL, with the scheme mqtt, mqtts, ws or wss; CA, a file;
VERSION, 4 or 5; USERNAME and PASSWORD; and NAME, the prefix of its client identifiers and topics.
For each supported item of COLUMNS the script prints a line: the name, a tab, and either `ok`, or
`FAIL`, a tab and the actual result.
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import bridge
import java_http
import proxies
from broker import ADMIN, Broker

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "target/clients"
COLUMNS = ("connect", "QoS 0", "QoS 1", "QoS 2", "retained", "will", "shared", "properties", "session", "SCRAM")
VERSIONS = {"4": "3.1.1", "5": "5.0"}
AT_ONCE = 4
PATIENCE = 120  # seconds

PAHO, AWS_CRT, MQTT_JS = "paho-mqtt==2.1.0", "awscrt==0.38.1", "mqtt@5.16.0"  # rumqttc: see its Cargo.toml

# Scripts, with their transports.
EVERY_TRANSPORT = ("mqtt", "mqtts", "ws", "wss")
CLIENTS = {
    "paho-mqtt": ([TARGET / "venv/bin/python", "-B", HERE / "paho_client.py"], EVERY_TRANSPORT),
    "awscrt": ([TARGET / "venv/bin/python", "-B", HERE / "aws_crt.py"], ("mqtt", "mqtts")),
    "MQTT.js": (["node", TARGET / "mqtt_js.mjs"], EVERY_TRANSPORT),
    "rumqttc": ([TARGET / "rumqttc/debug/rumqttc-client"], EVERY_TRANSPORT),
    "mosquitto": (["bash", HERE / "mosquitto.sh"], ("mqtt", "mqtts")),
}
SPEAK_AUTH = ("MQTT.js",)
# What a script checks, if that is not all: awscrt is there for its user name.
CHECKS = {"awscrt": {"connect", "QoS 0", "QoS 1"}}
# Clients with separate tables.
OTHERS = {"bridge": bridge.main, "java": java_http.main, "proxies": proxies.main}


def install():
    def run(*command, **options):
        subprocess.run(command, check=True, stdout=sys.stderr, **options)

    run(sys.executable, "-m", "venv", TARGET / "venv")
    run(TARGET / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", PAHO, AWS_CRT)
    run("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", TARGET, MQTT_JS)
    for script in HERE.glob("*.mjs"):
        (TARGET / script.name).write_bytes(script.read_bytes())  # next to node_modules
    manifest = HERE / "rumqttc/Cargo.toml"
    run("cargo", "build", "--quiet", "--locked", "--manifest-path", manifest, "--target-dir", TARGET / "rumqttc")


def certificates():
    """Creates an authority, and a certificate for localhost signed by it."""
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
    server = "-CA ca.pem -CAkey ca.key -addext basicConstraints=CA:FALSE -addext subjectAltName=DNS:localhost".split()
    for name, more in (("ca", []), ("server", server)):
        command = [*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *more]
        subprocess.run(command, cwd=TARGET, check=True, stderr=subprocess.DEVNULL)


def run(broker, client, version, scheme):
    command, _ = CLIENTS[client]
    path = "/mqtt" if scheme in ("ws", "wss") else ""
    environment = os.environ | {
        "URL": f"{scheme}://localhost:{broker.ports[scheme]}{path}",
        "CA": str(TARGET / "ca.pem"),
        "VERSION": version,
        "USERNAME": ADMIN,
        "PASSWORD": broker.password,
        "NAME": f"{client}-{version}-{scheme}",
    }
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE
        )
        said = done.stdout
    except subprocess.TimeoutExpired as error:
        said = f"{(error.stdout or b'').decode()}\nno end after {PATIENCE} s"
    cells = {line.split("\t")[0]: line.split("\t")[1:] for line in said.splitlines() if "\t" in line}
    return cells, said


def main():
    wanted = sys.argv[1:] or [*CLIENTS, *OTHERS]
    clients = [client for client in wanted if client not in OTHERS]
    failed = bool(clients) and run_clients(clients)
    for other, main_of_other in OTHERS.items():
        if other in wanted:
            print()
            failed = main_of_other() or failed
    return 1 if failed else 0


def run_clients(wanted):
    """Returns whether a cell says FAIL."""
    TARGET.mkdir(parents=True, exist_ok=True)
    install()
    certificates()
    tls = (f"tls.certificate={TARGET / 'server.pem'}", f"tls.key={TARGET / 'server.key'}", "mqtt.tls=127.0.0.1:0")
    others = ("mqtt.websocket=127.0.0.1:0", "mqtt.secure_websocket=127.0.0.1:0", "auth.scram=true", "auth.username_without_query=true")
    failed = False
    print("| client | MQTT | over |", *(f"{column} |" for column in COLUMNS))
    print("|---|---|---|" + "---|" * len(COLUMNS))
    with (
        Broker(*tls, *others) as broker,
        concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        rows = [
            (client, version, scheme, pool.submit(run, broker, client, version, scheme))
            for client in wanted
            for version in VERSIONS
            for scheme in CLIENTS[client][1]
        ]
        for client, version, scheme, job in rows:
            cells, said = job.result()
            has_not = set() if version == "5" else {"properties", "SCRAM"}
            has_not |= set() if client in SPEAK_AUTH else {"SCRAM"}
            has_not |= set(COLUMNS) - CHECKS.get(client, set(COLUMNS))
            missing = set(COLUMNS) - set(cells) - has_not
            if missing or any(cell[0] != "ok" for cell in cells.values()):
                failed = True
                print(f"{client} {VERSIONS[version]} {scheme}:\n{said}", file=sys.stderr)
            texts = [cells.get(column, ["FAIL" if column in missing else "–"])[0] for column in COLUMNS]
            print(f"| {client} | {VERSIONS[version]} | {scheme} |", *(f"{text} |" for text in texts), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
