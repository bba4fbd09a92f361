#!/usr/bin/env python3
"""Size of the program, time of its start, and its memory without clients, beside mosquitto.

    cargo build --release && tests/packages/figures.py

The size is that of the stripped program. The time is from the start of the process to its notification for systemd that it is
ready, at a start on a data directory that an earlier start has made. The memory is VmRSS ten seconds after that, with the
defaults but for ports, and what it consists of: memory of its own, and pages of the program and its libraries. All of these
are medians of five starts. A quiet machine is needed for the times.

Needs strip (binutils); mosquitto is left out if it is not there. HEARTHMQ names another program than target/release/hearthmq.
Exit code 1 if a bar is missed.
"""

import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("HEARTHMQ", ROOT / "target/release/hearthmq")).resolve()
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
ROUNDS = 5
SECONDS = 10
PATIENCE = 60  # seconds
READY_MILLIS_MAX, RSS_MIB_MAX = 100, 15
MIB = 1024  # KiB


def stripped_bytes(directory):
    stripped = directory / "stripped"
    subprocess.run([os.environ.get("STRIP", "strip"), "-o", stripped, PROGRAM], check=True)
    return stripped.stat().st_size


def memory(process):
    """Returns VmRSS, and its part that no file has, in KiB; and the number of threads."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return [int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) for name in ("VmRSS", "RssAnon", "Threads")]


def end(process):
    process.terminate()
    process.wait(PATIENCE)


def start(directory):
    """Starts the program; returns it and the seconds until it says that it is ready."""
    address = directory / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(address))
        notified.settimeout(PATIENCE)
        command = [PROGRAM, "run"]
        for setting in (f"data_dir={directory / 'data'}", "mqtt.tcp=127.0.0.1:0", "http.listen=127.0.0.1:0"):
            command += ["--set", setting]
        began = time.perf_counter()
        environment = os.environ | {"NOTIFY_SOCKET": str(address)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while b"READY=1" not in notified.recv(4096):
            pass
        return process, time.perf_counter() - began


def start_mosquitto():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen([MOSQUITTO, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, time.perf_counter() - began
        except ConnectionRefusedError:
            time.sleep(0.0005)


def rounds(starter):
    """Returns the medians: milliseconds to ready, MiB of VmRSS and of memory of its own, threads."""
    found = []
    for _ in range(ROUNDS):
        process, seconds = starter()
        time.sleep(SECONDS)
        rss, own, threads = memory(process)
        found.append((seconds * 1000, rss / MIB, own / MIB, threads))
        end(process)
    return [statistics.median(column) for column in zip(*found)]


def main():
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        print(f"stripped: {stripped_bytes(directory) / 1e6:.1f} MB")
        end(start(directory)[0])  # makes the account of the administrator, which hashes a password
        starters = {"HearthMQ": lambda: start(directory)}
        if MOSQUITTO:
            starters["mosquitto"] = start_mosquitto
        print("| broker | ready after ms | VmRSS MiB | of which its own | threads |")
        print("|---|---|---|---|---|")
        medians = {}
        for name, starter in starters.items():
            medians[name] = ready, rss, own, threads = rounds(starter)
            print(f"| {name} | {ready:.1f} | {rss:.1f} | {own:.1f} | {threads:.0f} |", flush=True)
    ready, rss, *_ = medians["HearthMQ"]
    met = ready < READY_MILLIS_MAX and rss <= RSS_MIB_MAX
    print(f"bars ({READY_MILLIS_MAX} ms, {RSS_MIB_MAX} MiB): {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
