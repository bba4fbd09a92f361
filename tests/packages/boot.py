#!/usr/bin/env python3
"""Boots a Debian system with the package under a real systemd, in qemu.

    cargo build --release && tests/packages/boot.py

The system installs the package, and a script in it says on the serial line what it finds: whether the service is ready,
its user, its sandbox, the password in no journal, failed logins survived, reload, the watchdog, a restart after `kill -9`,
and a clean stop. A virtual machine without hardware support takes two minutes.

Needs what run.py needs, qemu-system-x86 and e2fsprogs (Debian's packages). Exit code 0 if every line says ok.
"""

import re
import shutil
import subprocess
import sys

from run import WORK, Failed, System, expect, make_packages, run

PACKAGES = ("systemd-sysv", "dbus", "linux-image-cloud-amd64", "curl")
BOOT_TIME_MAX = 1800  # seconds
SIZE = "1600M"
SCRIPT = """#!/bin/bash
exec >/dev/ttyS0 2>&1
say() { if eval "$2" >/tmp/out 2>&1; then echo "CHECK ok $1"; else echo "CHECK FAIL $1: $(tail -n 3 /tmp/out | tr '\\n' ' ')"; fi; }
await() { for _ in $(seq 300); do eval "$1" >/tmp/out 2>&1 && return; sleep 1; done; return 1; }
property() { systemctl show --property="$1" --value hearthmq; }
export HEARTHMQ_REMOTE_USER=admin
say 'the service is active after its start' 'systemctl is-active hearthmq'
say 'it has said that it is ready' 'test "$(property Type)" = notify && hearthmq health'
say 'it runs as its user' 'test "$(ps -o user= -p "$(property MainPID)")" = hearthmq'
say 'it has no capabilities' 'grep -q "^CapBnd:.0000000000000000" /proc/$(property MainPID)/status'
say 'its system calls are filtered' 'grep -q "^Seccomp:.2" /proc/$(property MainPID)/status'
say 'its exposure is at most 1.5' 'systemd-analyze security --threshold=15 --no-pager hearthmq'
password=$(cat /var/lib/hearthmq/admin-password)
export HEARTHMQ_REMOTE_PASSWORD=$password
say 'the password logs in' 'hearthmq node'
say 'the journal does not have it' '! journalctl --unit hearthmq | grep -qF "$password"'
say 'the journal names its file' 'journalctl --unit hearthmq | grep -q /var/lib/hearthmq/admin-password'
say 'failed logins end nothing' 'for i in 1 2 3; do HEARTHMQ_REMOTE_PASSWORD=wrong$i hearthmq node; done; hearthmq node'
say 'metrics know the start of the process' 'curl -s http://127.0.0.1:8080/metrics | grep -q "^process_start_time_seconds [1-9]"'
say 'no line of the journal is an error' '! journalctl --unit hearthmq | grep -E " (ERROR|WARN) .*(not told|cannot be told|does not answer)"'
say 'a message is retained' 'hearthmq publish kept yes --retain'
say 'reload' 'systemctl reload hearthmq && journalctl --unit hearthmq | grep -q "configuration read again"'
sign=$(property WatchdogTimestampMonotonic)
say 'the watchdog gets signs of life' 'await "test \\$(property WatchdogTimestampMonotonic) -gt $sign"'
say 'it is killed' 'kill -9 "$(property MainPID)"'
say 'and starts again' 'await "test \\$(property NRestarts) = 1 && hearthmq health"'
say 'with its data' 'curl -sf -u "admin:$password" http://127.0.0.1:8080/api/v1/retained | grep -q kept'
say 'a process that stands still' 'kill -STOP "$(property MainPID)"'
say 'is ended by the watchdog, and starts again' 'await "test \\$(property NRestarts) = 2 && hearthmq health"'
say 'upgrade' 'dpkg --install /later.deb && hearthmq health && test "$(dpkg-query -W -f "\\${Version}" hearthmq)" = LATER'
say 'stop' 'systemctl stop hearthmq && test "$(property Result)" = success'
say 'purge' 'dpkg --purge hearthmq && test ! -e /var/lib/hearthmq && test ! -e /etc/hearthmq'
echo CHECK done
systemctl poweroff --force
"""
UNIT = """[Unit]
After=hearthmq.service multi-user.target
[Service]
ExecStart=/check
[Install]
WantedBy=multi-user.target
"""


def make_system(deb, later):
    """Returns a system with a kernel, the package, and the script that starts at its boot."""
    system = System("boot")
    shutil.copy("/etc/resolv.conf", system.path("etc/resolv.conf"))
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends")
    system.run("apt-get", "update", "--quiet")
    system.run("env", "DEBIAN_FRONTEND=noninteractive", *install, *PACKAGES, "procps")
    system.path("usr/sbin/policy-rc.d").unlink()
    system.dpkg("--install", deb)
    shutil.copy(later, system.path("later.deb"))
    for name, text, mode in (("check", SCRIPT.replace("LATER", "99.0.0"), 0o755), ("etc/systemd/system/check.service", UNIT, 0o644)):
        system.path(name).write_text(text)
        system.path(name).chmod(mode)
    # A short time, so that the test need not wait for two minutes.
    drop_in = system.path("etc/systemd/system/hearthmq.service.d")
    drop_in.mkdir(parents=True)
    (drop_in / "test.conf").write_text("[Service]\nWatchdogSec=60\n")
    system.run("systemctl", "enable", "check")
    return system


def boot(system):
    (kernel,), (initial,) = system.path("boot").glob("vmlinuz-*"), system.path("boot").glob("initrd.img-*")
    image = WORK / "boot.img"
    run("mke2fs", "-q", "-t", "ext4", "-d", system.root, image, SIZE)
    serial = WORK / "serial.log"
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-display", "none", "-no-reboot"]
    command += ["-kernel", kernel, "-initrd", initial, "-append", "root=/dev/vda rw console=ttyS0 quiet"]
    command += ["-drive", f"file={image},if=virtio,format=raw", "-nic", "none", "-serial", f"file:{serial}"]
    try:
        subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, timeout=BOOT_TIME_MAX, check=False)
    except subprocess.TimeoutExpired:
        pass  # what it has said shows how far it came
    return serial.read_text(errors="replace")


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        deb, later, _ = make_packages()
        said = boot(make_system(deb, later))
        checks = re.findall(r"CHECK (.*?)\r?$", said, re.MULTILINE)
        print(*checks, sep="\n")
        expect("done" in checks, f"the system did not come to its end:\n{said[-3000:]}")
        expect(not [check for check in checks if check.startswith("FAIL")], "see above")
    except Failed as failure:
        print(f"FAIL {failure}")
        return 1
    shutil.rmtree(WORK)
    print("boot: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
