"""Runs every benchmark against peers and writes the tables.

    python e2e/bench/run.py --ferroflow PROGRAM --mlserver PYTHON --write docs/benchmarks.md
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def serving(program, mlserver):
    """serving.py prints its own figures; they are put into a table here."""
    from table import Table

    table = Table(
        "Model serving",
        "V2 REST, one row of 64 numbers a request, the same XGBoost model; load from wrk on the same machine.",
        ("connections", "Ferroflow", "MLServer 1.7", "ratio"),
    )
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "modelserver"
        link.symlink_to(program)
        out = Path(folder) / "figures.json"
        subprocess.run([sys.executable, HERE / "serving.py", "--modelserver", link, "--mlserver", mlserver, "--json", out], check=True)
        figures = json.loads(out.read_text())
    return table, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ferroflow", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--mlserver", help="interpreter of an environment with mlserver (requirements-mlserver.txt)")
    parser.add_argument("--write", help="Markdown file to write")
    parser.add_argument("--only", default="", help="startup, steps, kubeapi or serving")
    options = parser.parse_args()
    os.environ["FERROFLOW"] = options.ferroflow
    import kubeapi
    import startup
    import steps

    tables = []

    def show(table):
        tables.append(table)
        print(table.text(), flush=True)

    def wanted(name):
        return options.only in ("", name)

    table, server = startup.measure(tempfile.mkdtemp(prefix="ferroflow-bench-", dir="/var/tmp"))
    try:
        show(table)
        if wanted("kubeapi"):
            show(kubeapi.measure(server))
        if wanted("steps"):
            show(steps.measure(server.url))
            table.add("resident memory after 300 steps", f"{startup.resident_mib(server.process.pid):.0f} MiB", "< 120 MiB")
    finally:
        server.end()
    if wanted("serving") and options.mlserver:
        table, figures = serving(options.ferroflow, options.mlserver)
        for connections in (1, 16):
            ours, theirs = (figures[f"{name} c={connections}"]["rps"] for name in ("ferroflow", "mlserver"))
            table.add(connections, f"{ours:.0f} requests/s", f"{theirs:.0f} requests/s", f"{ours / theirs:.1f}x")
        show(table)
    if options.write:
        head = (
            "# Benchmarks\n\nWritten by `cargo xtask bench`; each figure is beside a peer's of the same run.\n\n"
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}.\n\n"
        )
        Path(options.write).write_text(head + "\n".join(table.markdown() for table in tables))


if __name__ == "__main__":
    main()
