"""A Ferroflow of one's own, for stories and benchmarks."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "cluster"))

import go_programs  # noqa: E402


@functools.cache
def kubectl_program():
    """The machine's kubectl, or one that is built from Go modules where it has none."""
    return str(go_programs.kubectl())


class Ferroflow:
    """A `ferroflow up` that a test may stop, kill and start again."""

    def __init__(self, folder, *flags):
        self.program = os.environ.get("FERROFLOW", "ferroflow")
        self.folder = Path(folder)
        self.flags = flags
        self.process = None

    @property
    def endpoint_file(self):
        return self.folder / "run/endpoint.json"

    @property
    def kubeconfig(self):
        return self.folder / "kubeconfig"

    @property
    def url(self):
        return json.loads(self.endpoint_file.read_text())["url"]

    @property
    def port(self):
        return json.loads(self.endpoint_file.read_text())["port"]

    def start(self, port=0, timeout=60):
        """Starts it and waits until it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.endpoint_file.unlink(missing_ok=True)
        log = open(self.folder / "ferroflow.log", "ab")
        command = [self.program, "up", "--port", str(port), "--data-dir", str(self.folder), *self.flags]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"ferroflow ended with {self.process.returncode}:\n{self.log()}")
            if self.endpoint_file.exists() and self.ready():
                return self
            time.sleep(0.02)
        raise AssertionError(f"ferroflow is not ready after {timeout} s:\n{self.log()}")

    def ready(self):
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def log(self):
        return (self.folder / "ferroflow.log").read_text(errors="replace")[-4000:]

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Asks it to stop, as Ctrl-C does."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()

    def kubectl_command(self, *args):
        """The command line of kubectl against it."""
        return [kubectl_program(), "--kubeconfig", str(self.kubeconfig), *args]

    def kubectl(self, *args, check=True):
        """Runs kubectl against it; answers what it printed."""
        done = subprocess.run(self.kubectl_command(*args), capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done

    def end(self):
        """Stops it with every Pod that is left, and removes its folder."""
        if self.process and self.process.poll() is None:
            subprocess.run(
                self.kubectl_command("delete", "pods", "-A", "--grace-period=0", "--force",
                                     "--field-selector", "status.phase!=Succeeded,status.phase!=Failed"),
                capture_output=True, timeout=60, check=False,
            )
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
