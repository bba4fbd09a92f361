#!/usr/bin/env python3
"""Mosquitto's tests of its broker against HearthMQ: dialogues in raw packets, MQTT 3.1 to 5.0.

    git clone https://github.com/eclipse-mosquitto/mosquitto ELSEWHERE
    cargo build --release
    tests/clients/mosquitto_broker_tests/run.py ELSEWHERE [PART OF A NAME] [--ports FROM]

Needs psutil (PyPI) for two of them. Prints a Markdown table and the counts. A test that fails among
others is run again alone. Exit code 0 if exactly the tests in DIFFERENCES fail.
"""

import argparse
import concurrent.futures
import importlib
import pathlib
import queue
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
AT_ONCE = 6
PORTS_PER_TEST = 4
PATIENCE = 120  # seconds
SKIPPED = 77

# Tests of features of Mosquitto outside of MQTT, by the start of their names.
NOT_MQTT = {
    "06-bridge": "bridges",
    "08-ssl-bridge": "bridges",
    "08-tls-psk": "pre-shared keys",
    "09-plugin": "Mosquitto's plugins",
    "11-persistence-autosave": "Mosquitto's file of what is kept",
    "09-extended-auth": "Mosquitto's plugins",
    "01-plugin": "Mosquitto's plugins",
    "14-dynsec": "Mosquitto's plugins",
    "15-persist": "Mosquitto's plugins",
    "16-": "Mosquitto's command line and configuration file",
    "17-control": "Mosquitto's $CONTROL topics",
    "20-sparkplug": "Mosquitto's plugins",
    "21-proxy": "Mosquitto's log, where these tests look",
    "22-http-api": "Mosquitto's HTTP interface",
}

# Tests that the suite contains but does not run, with the number of their ports.
MORE = [("msg_sequence_test.py:websockets", 1)]

# Differences of HearthMQ, and what permits them.
DIFFERENCES = {
    "01-connect-auto-id": "client identifiers that it assigns look otherwise: 3.2.2.3.7 only wants them new",
    "01-connect-global-max-clients": "says Quota exceeded, where Mosquitto says Server busy: 3.2.2.2 has both",
    "01-connect-max-keepalive": "lets MQTT 3.1.1 clients keep a longer Keep Alive, as they cannot be told another",
    "02-subpub-qos0-long-topic": "refuses a filter of too many levels by SUBACK, where Mosquitto closes: 3.9.3 has a code for it",
    "02-subpub-qos1-message-expiry.py": "gives Packet Identifiers in another order: 2.2.1 only wants them unused",
    "02-subscribe-long-topic": "says Topic Filter invalid, where Mosquitto says Malformed Packet: 3.14.2.1 has both",
    "03-publish-c2b-disconnect-qos2": "says Packet Identifier not found for a PUBREL that comes again: 3.7.2.1",
    "03-publish-long-topic": "says Topic Name invalid, where Mosquitto says Malformed Packet: 3.14.2.1 has both",
    "03-publish-qos1-max-inflight-expire": "gives Packet Identifiers in another order: 2.2.1 only wants them unused",
    "03-publish-qos2-reuse-mid": "keeps the first message of a Packet Identifier that is in use: [MQTT-4.3.3-10]",
    "07-will-delay-invalid-573191": "says in CONNACK why a CONNECT is wrong, which 4.13.1 allows",
    "07-will-no-flag": "says in CONNACK why a CONNECT is wrong, which 4.13.1 allows",
    "07-will-null-topic": "says in CONNACK why a CONNECT is wrong, which 4.13.1 allows",
    "07-will-takeover": "publishes a Will without delay at a takeover: [MQTT-3.1.2-8], 3.1.3.2.2",
    "08-ssl-connect-no-identity": "refuses who shows neither certificate nor user name with 5 (0x87), where Mosquitto says 4 (0x86)",
    "11-message-expiry": "gives Packet Identifiers in another order: 2.2.1 only wants them unused",
    "11-persistent-subscription-no-local": "gives Packet Identifiers in another order: 2.2.1 only wants them unused",
    "12-prop-assigned-client-identifier": "client identifiers that it assigns look otherwise: 3.2.2.3.7 only wants them new",
    "12-prop-maximum-packet-size-broker": "takes no Maximum Packet Size below 128 for itself",
    "12-prop-maximum-packet-size-publish-qos2": "delivers a QoS 2 message when it comes, not after PUBREL: 4.3.3, figure 4.3",
}

# Tests that may differ by chance.
MAY_DIFFER = {
    "02-shared-qos0-v5": "begins with any member of a shared subscription: 4.8.2 leaves the choice to the server",
}


def run(suite, ports, test, arguments):
    if reason := explained(NOT_MQTT, test):
        return "skipped", f"needs {reason}"
    first = ports.get()
    numbers = [str(first + offset) for offset in range(arguments)]
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-W", "ignore", HERE / "one_test.py", suite, test, *numbers],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        return "FAIL", f"no end after {PATIENCE} s\n{error.stdout}"
    finally:
        ports.put(first)
    if done.returncode == SKIPPED:
        return "skipped", done.stdout.strip().splitlines()[-1]
    return ("ok" if done.returncode == 0 else "FAIL"), done.stdout


def explained(reasons, name):
    return next((why for start, why in reasons.items() if name.startswith(start)), None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", type=pathlib.Path)
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--ports", type=int, default=23010)
    arguments = parser.parse_args()
    suite = arguments.suite.resolve() / "test"
    sys.path[:0] = [str(suite), str(suite / "broker")]
    listed = [(name.removeprefix("./"), count) for count, name, *_ in importlib.import_module("test").tests]
    tests = [test for test in [*listed, *MORE] if arguments.part in test[0]]
    ports = queue.Queue()
    for place in range(AT_ONCE):
        ports.put(arguments.ports + place * PORTS_PER_TEST)
    counts = {"ok": 0, "differs": 0, "FAIL": 0, "skipped": 0}
    print("| test | result |\n|---|---|")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        running = [(name, count, pool.submit(run, suite, ports, name, count)) for name, count in tests]
        outcomes = [(name, count, *job.result()) for name, count, job in running]
    as_expected = True
    for name, count, result, said in outcomes:
        differs = explained(DIFFERENCES, name)
        may_differ = explained(MAY_DIFFER, name)
        if result == "FAIL" and not differs and not may_differ:
            result, said = run(suite, ports, name, count)
        if (result == "FAIL") != bool(differs) and not may_differ:
            as_expected = False
            print(f"==== {name}\n{said}", file=sys.stderr)
        if result == "FAIL" and (differs or may_differ):
            result, said = "differs", differs or may_differ
        counts[result] += 1
        print(f"| {name} | {result}{f': {said}' if result in ('skipped', 'differs') else ''} |")
    print("\n" + ", ".join(f"{count} {result}" for result, count in counts.items()))
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
