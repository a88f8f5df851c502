"""Starts the object storage emulators that this machine has, runs a command with their addresses, and stops them.

    python e2e/emulators/run.py cargo test -p ferroflow-blob -p features

`moto_server` (PyPI `moto[server]`) stands for S3, `azurite-blob` (npm `azurite`) for Azure Blob. What is absent is named,
and its tests say SKIPPED. Programs are looked for on PATH, beside this Python, and where MOTO and AZURITE say.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# the account that Azurite always has
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def program(variable, name):
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return os.environ.get(variable) or shutil.which(name, path=os.pathsep.join(places))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port, deadline=60):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"an emulator does not listen on port {port} after {deadline} s")


def request(method, url, body=None, headers=None):
    asked = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        urllib.request.urlopen(asked, timeout=10).read()
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


def azure_container(url, name):
    """Makes a container; the request is signed with the account's key (SharedKey)."""
    import base64
    import hashlib
    import hmac
    from email.utils import formatdate

    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    kind = "application/octet-stream"
    text = "PUT" + "\n" * 5 + kind + "\n" * 7 + headers + resource
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    signed = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Content-Type": kind,
              "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"}
    request("PUT", f"{url}/{name}?restype=container", b"", signed)


def main(command):
    environment = dict(os.environ)
    running = []
    folder = tempfile.mkdtemp(prefix="ferroflow-emulators-")

    def start(arguments, **more):
        quiet = subprocess.DEVNULL
        running.append(subprocess.Popen(arguments, stdin=quiet, stdout=quiet, stderr=quiet, **more))

    try:
        if moto := program("MOTO", "moto_server"):
            port = free_port()
            start([moto, "-H", "127.0.0.1", "-p", str(port)])
            answers(port)
            request("PUT", f"http://127.0.0.1:{port}/bucket", b"")
            environment["FERROFLOW_TEST_S3"] = (
                f"s3://bucket aws_endpoint=http://127.0.0.1:{port} aws_access_key_id=test aws_secret_access_key=test "
                "aws_region=us-east-1"
            )
        else:
            print("SKIPPED s3: moto_server is absent (pip install 'moto[server]')", file=sys.stderr)
        if azurite := program("AZURITE", "azurite-blob"):
            port = free_port()
            start([azurite, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent",
                   "--skipApiVersionCheck", "--inMemoryPersistence"])
            answers(port)
            azure_container(f"http://127.0.0.1:{port}/{ACCOUNT}", "bucket")
            environment["FERROFLOW_TEST_AZURE"] = (
                f"az://bucket azure_storage_endpoint=http://127.0.0.1:{port}/{ACCOUNT} "
                f"azure_storage_account_name={ACCOUNT} azure_storage_account_key={KEY} azure_allow_http=true"
            )
        else:
            print("SKIPPED azure: azurite-blob is absent (npm install -g azurite)", file=sys.stderr)
        # fake-gcs-server takes uploads by the JSON API alone and answers 400 "invalid uploadType" to the XML API that
        # object_store writes with, so there is no emulator of Google's to start; a real bucket may be given instead
        if "FERROFLOW_TEST_GCS" not in environment:
            print("SKIPPED gcs: no emulator speaks the XML API; set FERROFLOW_TEST_GCS to a real bucket", file=sys.stderr)
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(sys.argv[1:]))
