"""One installation for all stories of this folder; where it cannot be had, they are skipped and say why."""

import os
import shutil
import tempfile

import pytest

from installation import Installation, program


def missing():
    """Why there can be no installation on this machine, if so."""
    if os.geteuid() != 0:
        return "only root can make the Pods' addresses local (ip route add local)"
    for tool, why in [("go", "a real kube-apiserver cannot be built"), ("etcd", "Debian: etcd-server"), ("ip", "Debian: iproute2"),
                      ("openssl", "it makes the certificates"), ("psql", "Debian: postgresql")]:
        if not shutil.which(tool):
            return f"{tool} is not installed: {why}"
    if not shutil.which(program()):
        return f"{program()} is no program; set FERROFLOW"
    for variable in ["FERROFLOW_TEST_POSTGRES", "FERROFLOW_TEST_NATS"]:
        if variable not in os.environ:
            return f"{variable} is not set; cargo xtask test --only stories/cluster starts the server"
    return None


@pytest.fixture(scope="session")
def cluster():
    reason = missing()
    if reason:
        pytest.skip(f"NOT RUN AT ALL: no real cluster: {reason}")
    folder = tempfile.mkdtemp(prefix="ferroflow-cluster-story-", dir="/var/tmp")
    with Installation(folder, os.environ["FERROFLOW_TEST_POSTGRES"], os.environ["FERROFLOW_TEST_NATS"]) as running:
        yield running
