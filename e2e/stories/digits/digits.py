"""Runs the story against a running Ferroflow and shows how it goes.

    python digits.py --endpoint DIR/run/endpoint.json --kubeconfig DIR/kubeconfig
"""

import argparse
import json
import logging
import re
import sys
import time
import warnings

import requests
from rich.console import Console
from rich.live import Live
from rich.table import Table

warnings.filterwarnings("ignore")
logging.getLogger("kfp").setLevel(logging.ERROR)

import kfp  # noqa: E402

from pipeline import digits  # noqa: E402

STAGES = ["load", "tune", "train", "serve", "predict"]
ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}
MARK = {"PENDING": "[dim]waits[/]", "RUNNING": "[yellow]runs[/]", "SUCCEEDED": "[green]done[/]", "FAILED": "[red]failed[/]"}


def seconds(start, end):
    """How long a task took, or has taken so far."""
    if start is None:
        return ""
    now = end if end is not None and end.year > 1971 else start.__class__.now(start.tzinfo)
    return f"{(now - start).total_seconds():.1f} s"


def table(run):
    """The stages of a run, one a line."""
    view = Table(title=f"run {run.run_id}", title_justify="left")
    for column in ("stage", "state", "time"):
        view.add_column(column, justify="right" if column == "time" else "left", min_width=10)
    tasks = {t.display_name: t for t in (run.run_details.task_details or [])} if run.run_details else {}
    for stage in STAGES:
        task = tasks.get(stage)
        state = (task.state if task else None) or "PENDING"
        view.add_row(stage, MARK.get(state, state), seconds(task.start_time, task.end_time) if task else "")
    return view


class Lines:
    """Progress where no terminal can be redrawn: a line whenever a stage changes, the table at the end."""

    def __init__(self, console):
        self.console, self.run, self.seen = console, None, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.run is not None:
            self.console.print(table(self.run))

    def update(self, run):
        self.run = run
        for task in (run.run_details.task_details or []) if run.run_details else []:
            if task.display_name in STAGES and self.seen.get(task.display_name) != task.state:
                self.seen[task.display_name] = task.state
                self.console.print(f"{task.display_name}: {MARK.get(task.state, task.state)} {seconds(task.start_time, task.end_time)}")


class Redrawn(Live):
    """Progress in a terminal: the table, drawn again and again."""

    def update(self, run):
        super().update(table(run))


def progress(console):
    return Redrawn(console=console, refresh_per_second=4) if console.is_terminal else Lines(console)


def follow(client, run_id, console, timeout):
    """Shows the run until it has ended; answers it."""
    deadline = time.monotonic() + timeout
    run = client.get_run(run_id)
    with progress(console) as view:
        view.update(run)
        while run.state not in ENDED:
            if time.monotonic() > deadline:
                raise SystemExit(f"run {run_id} has not ended after {timeout} s; it is {run.state}")
            time.sleep(0.3)
            try:
                run = client.get_run(run_id)
            except Exception as error:  # Ferroflow may be restarted meanwhile
                if "refused" not in str(error) and "reset" not in str(error) and "Connection" not in str(error):
                    raise
            view.update(run)
    return run


def log_of(url, run, stage, token=None):
    """What a stage printed."""
    task = next((t for t in run.run_details.task_details if t.display_name == stage), None)
    if task is None:
        return ""
    node = (task.child_tasks[0].pod_name if task.child_tasks else None) or task.pod_name or task.task_id
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.get(f"{url}/apis/v1alpha1/runs/{run.run_id}/nodes/{node}/log", headers=headers, timeout=30)
    return answer.text if answer.ok else f"(no log: {answer.status_code} {answer.text})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="endpoint.json that ferroflow up writes")
    parser.add_argument("--kubeconfig", required=True, help="kubeconfig that ferroflow up writes")
    parser.add_argument("--token", help="bearer token, where the gateway wants one")
    parser.add_argument("--name", default="digits", help="name of experiment, job and model")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds the run may take")
    options = parser.parse_args()
    url = json.load(open(options.endpoint))["url"]
    console = Console(width=100 if not sys.stdout.isatty() else None)

    client = kfp.Client(host=url, existing_token=options.token)
    run = client.create_run_from_pipeline_func(digits, arguments={"name": options.name}, enable_caching=False)
    run = follow(client, run.run_id, console, options.timeout)
    if run.state != "SUCCEEDED":
        console.print(f"[red]run {run.run_id} ended as {run.state}[/]: {run.error}")
        for task in run.run_details.task_details:
            if task.state == "FAILED":
                print(f"--- {task.display_name}: {task.error}\n{log_of(url, run, task.display_name, options.token)[-4000:]}")
        raise SystemExit(1)
    said = log_of(url, run, "predict", options.token)
    accuracy = re.search(r"accuracy .*", said)
    if accuracy is None:
        raise SystemExit(f"the predict step printed no accuracy; it said:\n{said[-4000:]}")
    print(accuracy.group(0))


if __name__ == "__main__":
    main()
