#!/usr/bin/env python3
"""Installs, upgrades and removes the packages in a Debian system of their own.

    cargo build --release && tests/packages/run.py

Makes the packages by .ci/package, and a second Debian package of a later version. debootstrap makes the system, in
which no systemd runs; the program is started as the unit starts it, and asked over REST. `boot.py` boots such a system.

Needs root, debootstrap, lintian, rpm, binutils, dpkg-dev and systemd (Debian's packages), cargo-deb and
cargo-generate-rpm. HEARTHMQ names another program than target/release/hearthmq. Exit code 0 if every step is ok.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("HEARTHMQ", ROOT / "target/release/hearthmq")).resolve()
MADE = ROOT / "target/package"
WORK = ROOT / "target/packages-test"
SUITE = "bookworm"
PACKAGES_OF_SYSTEM = "adduser,systemd"
PATIENCE = 60  # seconds
EXPOSURE_MAX = 15  # tenths, of `systemd-analyze security`
LATER = "99.0.0"
CONFIGURATION = "etc/hearthmq/hearthmq.toml"
UNIT = "usr/lib/systemd/system/hearthmq.service"
# The synopsis is the description in Cargo.toml, which is also shown elsewhere.
LINTIAN_SUPPRESSED = "description-synopsis-starts-with-article"


class Failed(Exception):
    """The actual result in place of the expected one."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    expect(done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def make_packages():
    """Returns the paths of the Debian package, of one with a later version, and of the RPM."""
    run(ROOT / ".ci/package", PROGRAM, cwd=ROOT)
    (deb,), (rpm,) = MADE.glob("*.deb"), MADE.glob("*.rpm")
    later = WORK / "later.deb"
    run("cargo", "deb", "--quiet", "--no-build", "--no-strip", "--fast", "--deb-version", LATER, "--output", later, cwd=ROOT)
    return deb, later, rpm


def mirror():
    """Returns the address from which this machine has Debian's packages."""
    shown = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages")
    return next(line.split()[0] for line in shown.splitlines() if line.endswith(f" {SUITE}"))


class System:
    """A Debian system in a directory. No service starts in it."""

    def __init__(self, name):
        base = WORK.parent / f"{SUITE}-system"  # kept for the next run
        if not (base / "complete").exists():
            shutil.rmtree(base, ignore_errors=True)
            command = ("debootstrap", "--variant=minbase", f"--include={PACKAGES_OF_SYSTEM}", SUITE, base, mirror())
            run(*command)
            (base / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
            (base / "usr/sbin/policy-rc.d").chmod(0o755)
            (base / "complete").touch()
        self.root = WORK / name
        run("cp", "-a", base, self.root)

    def run(self, *command):
        return run("chroot", self.root, *command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    def dpkg(self, *arguments):
        """Runs dpkg on packages of this machine."""
        copied = []
        for argument in arguments:
            if isinstance(argument, pathlib.Path):
                shutil.copy(argument, self.root / argument.name)
                argument = f"/{argument.name}"
            copied.append(argument)
        return self.run("dpkg", *copied)

    def path(self, name):
        return self.root / name

    def owner(self, name):
        return self.run("stat", "--format=%U:%G %a", f"/{name}").strip()

    def has_nothing_left(self):
        left = run("find", self.root, "-xdev", "-name", "*hearthmq*", "-not", "-path", "*/var/lib/dpkg/*")
        left = [line for line in left.splitlines() if not line.endswith(".deb")]
        expect(not left, f"left over: {left}")


class Service:
    """The program in a system, started as its unit says, as the user of the unit."""

    def __init__(self, system):
        unit = system.path(UNIT).read_text()
        of_unit = dict(re.findall(r"^(\w+)=(.+)$", unit, re.MULTILINE))
        self.log = WORK / "service.log"
        environment = {
            "PATH": os.environ["PATH"],
            "HEARTHMQ_MQTT__TCP": "127.0.0.1:0",
            "HEARTHMQ_HTTP__LISTEN": "127.0.0.1:0",
            "JOURNAL_STREAM": "1:2",  # as under systemd: the password must not be in the log
        }
        user = of_unit["User"]
        command = ["chroot", f"--userspec={user}:{of_unit['Group']}", system.root, *of_unit["ExecStart"].split()]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.http, until = None, time.monotonic() + PATIENCE
        while self.http is None:
            found = re.search(r"listening on (http://\S+)", self.log.read_text())
            self.http = found and found[1]
            expect(self.process.poll() is None and time.monotonic() < until, self.log.read_text())
            time.sleep(0.05)

    def call(self, method, path, password, body=None):
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        request = urllib.request.Request(f"{self.http}{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        expect(code == 0, f"exit code {code}\n{self.log.read_text()}")


def check_unit(system):
    run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", system.path(UNIT))
    system.run("systemd-analyze", "verify", "--man=no", "hearthmq.service")


def check_installed(system):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    expect(system.run("hearthmq", "--version").startswith(f"hearthmq {version}"), "the program does not run")
    system.run("hearthmq", "check-config", f"/{CONFIGURATION}")
    for page in ("hearthmq", "hearthmq-clients-list"):
        expect(any(system.path("usr/share/man/man1").glob(f"{page}.1*")), f"no man page {page}")
    expect(system.run("getent", "passwd", "hearthmq").startswith("hearthmq:x:"), "no user")


def deb_is_clean(deb, *_):
    run("lintian", "--fail-on", "error,warning", "--suppress-tags", LINTIAN_SUPPRESSED, deb)


def deb_installs(deb, _later, _rpm, system):
    system.dpkg("--install", deb)
    check_installed(system)
    check_unit(system)
    expect(system.run("systemctl", "is-enabled", "hearthmq").strip() == "enabled", "not enabled")
    expect(system.owner("var/lib/hearthmq") == "hearthmq:hearthmq 700", system.owner("var/lib/hearthmq"))
    expect(system.dpkg("--verify", "hearthmq") == "", "files differ from the package")


def first_start_makes_a_password(*arguments):
    system = arguments[-1]
    with Service(system) as service:
        expect(system.owner("var/lib/hearthmq/admin-password") == "hearthmq:hearthmq 600", "who may read the password?")
        password = system.path("var/lib/hearthmq/admin-password").read_text().strip()
        expect(password not in service.log.read_text(), "the password is in the log")
        expect(service.call("GET", "/api/v1/node", password)[0] == 200, "no login")
        status, answer = service.call("POST", "/topics/kept?retained=true", password, b"payload")
        expect(status == 200, answer)


def has_kept_everything(system):
    expect("# ours" in system.path(CONFIGURATION).read_text(), "the configuration was replaced")
    password = system.path("var/lib/hearthmq/admin-password").read_text().strip()
    with Service(system) as service:
        status, answer = service.call("GET", "/api/v1/retained", password)
        expect(status == 200 and "kept" in json.dumps(json.loads(answer)), answer)


def upgrade_keeps_everything(_deb, later, _rpm, system):
    with system.path(CONFIGURATION).open("a") as configuration:
        configuration.write("# ours\n")
    system.dpkg("--install", later)
    shown = system.run("dpkg-query", "--showformat=${Version}", "--show", "hearthmq")
    expect(shown == LATER, f"version {shown}")
    has_kept_everything(system)


def removal_keeps_data(_deb, later, _rpm, system):
    system.dpkg("--remove", "hearthmq")
    expect(not system.path("usr/bin/hearthmq").exists() and not system.path(UNIT).exists(), "not removed")
    system.dpkg("--install", later)
    has_kept_everything(system)


def purge_leaves_nothing(*arguments):
    system = arguments[-1]
    system.dpkg("--purge", "hearthmq")
    system.has_nothing_left()


def rpm_installs_and_is_removed(_deb, _later, rpm, _system):
    """Without dependencies: the system knows no RPM beside this one."""
    system = System("rpm")
    run("rpm", f"--root={system.root}", "--nodeps", "--install", rpm)
    check_installed(system)
    check_unit(system)
    with system.path(CONFIGURATION).open("a") as configuration:
        configuration.write("# ours\n")
    system.run("install", "-d", "-o", "hearthmq", "-g", "hearthmq", "-m", "700", "/var/lib/hearthmq")
    with Service(system):
        pass
    run("rpm", f"--root={system.root}", "--nodeps", "--upgrade", "--force", rpm)
    expect("# ours" in system.path(CONFIGURATION).read_text(), "the configuration was replaced")
    run("rpm", f"--root={system.root}", "--nodeps", "--erase", "hearthmq")
    expect(not system.path("usr/bin/hearthmq").exists() and not system.path(UNIT).exists(), "not removed")
    expect(system.path("var/lib/hearthmq/store").exists(), "the data was removed")


STEPS = (
    deb_is_clean,
    deb_installs,
    first_start_makes_a_password,
    upgrade_keeps_everything,
    removal_keeps_data,
    purge_leaves_nothing,
    rpm_installs_and_is_removed,
)


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    packages = make_packages()
    print(*(f"{path.name}: {path.stat().st_size:,} bytes" for path in packages), sep="\n")
    system = System("deb")
    for step in STEPS:
        try:
            step(*packages, system)
        except Failed as failure:
            print(f"FAIL {step.__name__}: {failure}")
            return 1
        print(f"ok   {step.__name__}", flush=True)
    shutil.rmtree(WORK)
    print("packages: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
