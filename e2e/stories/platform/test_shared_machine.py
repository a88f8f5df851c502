"""A machine with several accounts: what runs in Pods answers the owner of this Ferroflow and no other OS user."""

import os
import subprocess

import pytest
import requests
from programs import apply, eventually, pod

PAGE = "echo secret > /tmp/$$ && mkdir -p site && mv /tmp/$$ site/name && exec python3 -m http.server -d site 8080"


def refused_to_another_user(url, *flags):
    """Whether another OS user is cut off with nothing: before curl is connected, at its request, or at the answer."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user of the machine")
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run([*other, "curl", "-s", "-m", "20", *flags, url], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout == "" and done.returncode in (7, 52, 55, 56)


def answers(url, text):
    """Whether the owner gets a text."""
    try:
        return requests.get(url, timeout=10).text.strip() == text
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def page(ferroflow):
    """URL of a file that a Pod serves at its own address."""
    apply(ferroflow, pod("page", PAGE))
    address = eventually("the pod runs", lambda: ferroflow.kubectl("get", "pod", "page", "-o", "jsonpath={.status.podIP}"))
    url = f"http://{address}:8080/name"
    eventually("the pod serves", lambda: answers(url, "secret"))
    return url


def test_the_owner_gets_the_page(ferroflow, page):
    assert answers(page, "secret")
    assert ferroflow.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/page:8080/proxy/name").strip() == "secret"


def test_another_pod_gets_the_page(ferroflow, page):
    apply(ferroflow, pod("reader", f"python3 -c 'import urllib.request as u; print(u.urlopen(\"{page}\").read().decode())'"))
    ferroflow.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/reader", "--timeout=60s")
    assert ferroflow.kubectl("logs", "reader").strip() == "secret"


@pytest.mark.parametrize("flags", [(), ("-X", "POST", "-d", "x=1")])
def test_another_user_gets_nothing(page, flags):
    assert refused_to_another_user(page, *flags)
    assert answers(page, "secret"), "the server goes on"


def test_another_user_gets_nothing_from_the_pods_own_address(page):
    """Anybody may bind a Pod's address; that makes nobody the Pod."""
    assert refused_to_another_user(page, "--interface", page.split("/")[2].split(":")[0])
    assert answers(page, "secret"), "the server goes on"


def test_another_user_asks_no_model(ferroflow, iris):
    labels = "serving.kserve.io/inferenceservice=iris"
    address = ferroflow.kubectl("get", "pods", "-l", labels, "-o", "jsonpath={.items[0].status.podIP}")
    ready = f"http://{address}:8080/v2/health/ready"
    assert requests.get(ready, timeout=10).status_code == 200
    assert refused_to_another_user(ready)
    assert requests.get(f"{iris}/v2/models/iris/ready", timeout=10).status_code == 200
