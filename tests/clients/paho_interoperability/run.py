#!/usr/bin/env python3
"""The public interoperability tests of Eclipse Paho against HearthMQ: client_test.py, MQTT 3.1.1, and
client_test5.py, MQTT 5.0.

    git clone https://github.com/eclipse/paho.mqtt.testing ELSEWHERE
    cargo build --release && tests/clients/paho_interoperability/run.py ELSEWHERE [--whole]

Every test has a process and a broker of its own, many at the same time; with --whole the tests of a
file run one after the other in one process with one broker, as their authors run them. A test that
fails among others is run again alone: some tests do not wait for the SUBACK of one client before
another publishes. Prints a Markdown table. Exit code 0 if exactly FAULTS_OF_THE_SUITE fail.
"""

import concurrent.futures
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from broker import Broker  # noqa: E402

MODULES = ("client_test", "client_test5")
AT_ONCE = 8  # most tests sleep most of the time

# Tests that no conforming broker passes, with the section that says so.
FAULTS_OF_THE_SUITE = {
    ("client_test5", "test_subscribe_failure"): "takes 0, 1, 2 and 0x80 alone for reason codes of a SUBACK; 0x87, Not"
    " authorized, is the one for this case: 3.9.3, table 3-8",
}

# Settings that the suite expects: few messages in flight, some Topic Aliases, and Server Keep Alive 60.
SETTINGS = (
    "auth.anonymous=true",
    "limits.keep_alive_secs_max=60",
    "limits.receive_maximum=20",
    "limits.topic_alias_maximum=10",
)


def run(suite, module, names):
    """Runs tests of a module; returns their results by name, and the whole output."""
    with Broker(*SETTINGS, policy=HERE / "policy.toml") as broker:
        command = [sys.executable, "-B", "-W", "ignore", HERE / "one_module.py", suite, str(broker.ports["mqtt"]), module]
        done = subprocess.run([*command, *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = [line.split("\t")[1:] for line in done.stdout.splitlines() if line.startswith("result\t")]
    return dict(said), done.stdout


def main():
    suite = pathlib.Path(sys.argv[1]).resolve() / "interoperability"
    jobs = []
    for module in MODULES:
        listed = subprocess.run(
            [sys.executable, "-B", HERE / "one_module.py", suite, "0", module, "--list"],
            stdout=subprocess.PIPE, text=True, check=True,
        )
        names = listed.stdout.split()
        jobs += [(module, names)] if "--whole" in sys.argv else [(module, [name]) for name in names]
    print("| file | test | result |\n|---|---|---|")
    outcomes = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        running = [(module, names, pool.submit(run, suite, module, names)) for module, names in jobs]
        for module, names, job in running:
            outcomes.append((module, names, *job.result()))
    as_expected = True
    for module, names, results, printed in outcomes:
        for name in names:
            fault = FAULTS_OF_THE_SUITE.get((module, name))
            result = results.get(name, "FAIL")
            if result != "ok" and not fault:
                again, printed = run(suite, module, [name])
                result = again.get(name, "FAIL")
            if (result == "ok") == bool(fault):
                as_expected = False
                print(printed, file=sys.stderr)
            print(f"| {module} | {name} | {result}{f', the fault is the suite’s: {fault}' if fault else ''} |", flush=True)
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
