"""Time from the start of the process to ready, resident memory, and processor time while idle."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stories"))

from server import Ferroflow  # noqa: E402
from table import Table  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} tells no VmRSS")


def cpu_seconds(pid):
    """Processor time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(folder, seconds=20):
    """A fresh start, then one that goes on; then nothing happens for some seconds."""
    table = Table(
        "Start and idle",
        "All services, API server, controllers and node agent in one process. Kubeflow's own full install asks for 8.4 GiB of requests in 52 "
        "Pods (counted from its manifests, not run here).",
        ("figure", "Ferroflow", "goal"),
    )
    server = Ferroflow(folder)
    for what in ("first start to ready", "second start to ready"):
        started = time.perf_counter()
        server.start()
        table.add(what, f"{time.perf_counter() - started:.2f} s", "< 1 s")
        if what.startswith("first"):
            server.stop()
    time.sleep(3)
    before = cpu_seconds(server.process.pid)
    time.sleep(seconds)
    share = (cpu_seconds(server.process.pid) - before) / seconds
    table.add("resident memory, idle", f"{resident_mib(server.process.pid):.0f} MiB", "< 120 MiB")
    table.add("processor while idle", f"{share:.2%} of a core", "< 1 %")
    return table, server
