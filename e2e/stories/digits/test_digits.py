"""The story as a test: the whole run, on a fresh Ferroflow, with unmodified clients."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_load_tune_train_serve_predict(ferroflow):
    command = [sys.executable, HERE / "digits.py", "--endpoint", ferroflow.endpoint_file, "--kubeconfig", ferroflow.kubeconfig]
    story = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert story.returncode == 0, story.stdout[-6000:] + story.stderr[-3000:]
    v1, v2 = re.search(r"accuracy (0\.\d+) \(v1\) (0\.\d+) \(v2\)", story.stdout).groups()
    assert float(v1) >= 0.95 and v1 == v2
