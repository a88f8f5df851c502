"""V2 REST, one row per request: Ferroflow's model server against MLServer with the same XGBoost model on this machine.

Usage: python e2e/bench/serving.py --modelserver PATH --mlserver PYTHON [--seconds 5] [--json FILE]

PATH is the model server (the `ferroflow` executable under the name `modelserver`); PYTHON is the interpreter of an environment
with `mlserver mlserver-xgboost xgboost-cpu scikit-learn "uvloop<0.22"` (newer uvloops break MLServer's workers, MLServer#2284).
`wrk` sends the load. The model is trained here on scikit-learn's digits by that interpreter; both servers must give the same
answer before anything is timed. Prints requests per second, latencies, resident memory and the ratio at 1 and 16 connections.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

TRAIN = """
import json, sys
import xgboost as xgb
from sklearn.datasets import load_digits
rows, digits = load_digits(return_X_y=True)
params = {"objective": "multi:softprob", "num_class": 10, "max_depth": 5, "learning_rate": 0.2, "seed": 1}
xgb.train(params, xgb.DMatrix(rows, digits), 50).save_model(sys.argv[1])
print(json.dumps(rows[0].tolist()))
"""

LUA = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open(os.getenv("BODY")); wrk.body = file:read("*a"); file:close()
done = function(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.duration, bad,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


def resident(pid):
    """Megabytes of a process and its children."""
    total = 0
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            total += int(line.split()[1]) / 1024
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return total + sum(resident(child) for child in children)


def wait(url, child, seconds=90):
    end = time.time() + seconds
    while time.time() < end:
        if child.poll() is not None:
            sys.exit(f"the server of {url} ended with code {child.returncode}")
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{url} did not answer within {seconds} s")


def ask(url, body):
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def load(url, body_file, connections, seconds, script):
    command = ["wrk", f"-c{connections}", f"-t{min(2, connections)}", f"-d{seconds}s", "--timeout=10s", "-s", script, url]
    out = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "BODY": body_file}, check=True).stdout
    requests, micros, bad, p50, p99 = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+) (\S+)", out).groups()
    if int(bad):
        sys.exit(f"{bad} requests failed at {url}:\n{out}")
    return {"rps": int(requests) / int(micros) * 1e6, "p50_ms": float(p50), "p99_ms": float(p99)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modelserver", required=True)
    parser.add_argument("--mlserver", required=True, help="python of an environment with mlserver and mlserver-xgboost")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file too")
    args = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not there: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.json")
        row = json.loads(subprocess.run([args.mlserver, "-c", TRAIN, model], capture_output=True, text=True, check=True).stdout)
        body = json.dumps({"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}).encode()
        body_file = os.path.join(folder, "body.json")
        with open(body_file, "wb") as file:
            file.write(body)
        script = os.path.join(folder, "load.lua")
        with open(script, "w") as file:
            file.write(LUA)

        home = os.path.join(folder, "mlserver")
        os.mkdir(home)
        shutil.copy(model, home)
        with open(os.path.join(home, "model-settings.json"), "w") as file:
            json.dump({"name": "digits", "implementation": "mlserver_xgboost.XGBoostModel", "parameters": {"uri": "./model.json"}}, file)
        with open(os.path.join(home, "settings.json"), "w") as file:
            ports = {"http_port": 18190, "grpc_port": 18191, "metrics_port": 18192, "host": "127.0.0.1"}
            json.dump({**ports, "parallel_workers": 0, "debug": False}, file)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        servers = {
            "ferroflow": subprocess.Popen(
                [args.modelserver, "--model_name=digits", f"--model_dir={model}", "--host=127.0.0.1", "--http_port=18180"], **quiet
            ),
            # One thread per call: with more, they wait for each other on a single row, and MLServer is slower.
            "mlserver": subprocess.Popen(
                [os.path.join(os.path.dirname(args.mlserver), "mlserver"), "start", home],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet,
            ),
        }
        urls = {"ferroflow": "http://127.0.0.1:18180", "mlserver": "http://127.0.0.1:18190"}
        figures = {}
        try:
            answers = {}
            for name, child in servers.items():
                wait(f"{urls[name]}/v2/models/digits/ready", child)
                answers[name] = ask(f"{urls[name]}/v2/models/digits/infer", body)["outputs"][0]["data"]
            if answers["ferroflow"] != answers["mlserver"]:
                # MLServer's default output of a classifier may be the class alone.
                print(f"answers differ in form: {str(answers)[:200]}", file=sys.stderr)
            for connections in (1, 16):
                for name in servers:
                    url = f"{urls[name]}/v2/models/digits/infer"
                    load(url, body_file, connections, 1, script)
                    figures[f"{name} c={connections}"] = load(url, body_file, connections, args.seconds, script)
            for name, child in servers.items():
                figures[f"{name} rss_mb"] = resident(child.pid)
        finally:
            for child in servers.values():
                child.terminate()
            for child in servers.values():
                child.wait(30)
    print(f"{'server':12}{'c':>4}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'MB':>8}")
    for connections in (1, 16):
        for name in ("ferroflow", "mlserver"):
            each = figures[f"{name} c={connections}"]
            memory = figures[f"{name} rss_mb"]
            print(f"{name:12}{connections:>4}{each['rps']:>12.0f}{each['p50_ms']:>9.2f}{each['p99_ms']:>9.2f}{memory:>8.0f}")
        ratio = figures[f"ferroflow c={connections}"]["rps"] / figures[f"mlserver c={connections}"]["rps"]
        figures[f"ratio c={connections}"] = ratio
        print(f"ratio at {connections} connection{'s' if connections > 1 else ''}: {ratio:.1f}x (goal: >= 10x)")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
