"""Compares the model server with xgboost itself: many kinds of models, JSON and UBJ, over V1 and V2.

Usage: python e2e/checks/xgboost_models.py MODELSERVER   (needs xgboost-cpu and scikit-learn)

Prints one line per model. Differences beyond 1e-6 fail; the line says how many values are bit-equal.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
import xgboost as xgb
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris


def models():
    """Yields (name, booster, rows)."""
    rng = np.random.default_rng(7)
    iris, kind = load_iris(return_X_y=True)
    digits, digit = load_digits(return_X_y=True)
    cancer, benign = load_breast_cancer(return_X_y=True)
    diabetes, progress = load_diabetes(return_X_y=True)
    holes = cancer.copy()
    holes[rng.random(holes.shape) < 0.2] = np.nan

    def train(params, rows, labels, rounds=20, **more):
        return xgb.train({"seed": 1, "nthread": 2, **params}, xgb.DMatrix(rows, labels, **more), rounds)

    multi = {"objective": "multi:softprob", "num_class": 3}
    yield "softprob", train(multi, iris, kind), iris
    yield "softprob base_score", train({**multi, "base_score": 0.3}, iris, kind), iris
    yield "softmax", train({"objective": "multi:softmax", "num_class": 3}, iris, kind), iris
    yield "softprob digits", train({"objective": "multi:softprob", "num_class": 10}, digits, digit, 40), digits
    yield "logistic", train({"objective": "binary:logistic"}, cancer, benign, 50), cancer
    yield "logistic missing", train({"objective": "binary:logistic"}, holes, benign, 50), holes
    yield "logitraw", train({"objective": "binary:logitraw"}, cancer, benign), cancer
    yield "hinge", train({"objective": "binary:hinge"}, cancer, benign), cancer
    yield "reg:logistic", train({"objective": "reg:logistic"}, cancer, benign), cancer
    yield "squarederror", train({"objective": "reg:squarederror"}, diabetes, progress, 60), diabetes
    yield "absoluteerror", train({"objective": "reg:absoluteerror"}, diabetes, progress), diabetes
    yield "pseudohuber", train({"objective": "reg:pseudohubererror"}, diabetes, progress), diabetes
    yield "squaredlogerror", train({"objective": "reg:squaredlogerror"}, diabetes, progress), diabetes
    yield "quantile", train(
        {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, diabetes, progress
    ), diabetes
    yield "poisson", train({"objective": "count:poisson"}, diabetes, np.round(progress / 50)), diabetes
    yield "gamma", train({"objective": "reg:gamma"}, diabetes, progress), diabetes
    yield "tweedie", train({"objective": "reg:tweedie"}, diabetes, progress), diabetes
    yield "cox", train({"objective": "survival:cox"}, diabetes, progress), diabetes
    aft = {"objective": "survival:aft"}
    yield "aft", train(aft, diabetes, None, label_lower_bound=progress, label_upper_bound=progress), diabetes
    for rank in ("pairwise", "ndcg", "map"):
        groups = {"group": [50] * 3}
        labels = (kind > 1).astype(int) if rank == "map" else kind
        yield f"rank:{rank}", train({"objective": f"rank:{rank}"}, iris, labels, **groups), iris
    yield "forest", train({**multi, "num_parallel_tree": 4, "subsample": 0.6}, iris, kind, 5), iris
    dart = {"booster": "dart", "rate_drop": 0.4}
    yield "dart", train({"objective": "binary:logistic", **dart}, cancer, benign), cancer
    yield "dart softprob", train({**multi, **dart}, iris, kind), iris
    yield "gblinear", train({"objective": "reg:squarederror", "booster": "gblinear"}, diabetes, progress), diabetes
    yield "gblinear softprob", train({**multi, "booster": "gblinear"}, iris, kind), iris
    two = np.stack([progress, -progress], axis=1)
    yield "targets", train({"objective": "reg:squarederror"}, diabetes, two), diabetes
    vector = {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
    yield "vector leaves", train({"objective": "reg:squarederror", **vector}, diabetes, two), diabetes
    yield "vector softprob", train({**multi, **vector}, iris, kind), iris
    codes = np.column_stack([rng.integers(0, 90, 600), rng.integers(0, 4, 600), rng.normal(size=600)]).astype(float)
    codes[rng.random(codes.shape) < 0.1] = np.nan
    target = np.nan_to_num(codes[:, 0]) % 7 + np.nan_to_num(codes[:, 1])
    categories = {"feature_types": ["c", "c", "q"], "enable_categorical": True}
    yield "categories", train({"objective": "reg:squarederror", "max_cat_to_onehot": 2}, codes, target, **categories), codes
    yield "one-hot", train({"objective": "reg:squarederror", "max_cat_to_onehot": 200}, codes, target, **categories), codes


def expected(booster, rows):
    types = booster.feature_types
    matrix = xgb.DMatrix(rows, feature_types=types, enable_categorical=types is not None)
    return booster.predict(matrix)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def served(server, path, rows):
    """Predictions over V1 and V2."""
    child = subprocess.Popen(
        [server, "--model_dir", path, "--host=127.0.0.1", "--http_port=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = child.stdout.readline().split()[-1]
        for _ in range(500):
            try:
                urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5).read()
                break
            except urllib.error.HTTPError:
                pass
        null = [[None if np.isnan(value) else float(value) for value in row] for row in rows]
        v1 = post(f"{url}/v1/models/model:predict", {"instances": null})["predictions"]
        tensor = {"name": "input-0", "shape": list(rows.shape), "datatype": "FP64", "data": null}
        output = post(f"{url}/v2/models/model/infer", {"inputs": [tensor]})["outputs"][0]
        return np.array(v1), np.array(output["data"]).reshape(output["shape"])
    finally:
        child.terminate()
        child.wait()


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, booster, rows in models():
            want = expected(booster, rows)
            for form in ("json", "ubj"):
                path = os.path.join(folder, f"model.{form}")
                booster.save_model(path)
                for protocol, got in zip(("v1", "v2"), served(sys.argv[1], path, rows)):
                    if got.shape != want.shape:
                        print(f"{name:20} {form} {protocol} shape {got.shape}, expected {want.shape}")
                        failed += 1
                        continue
                    # A double of the same value, or something else.
                    equal = int((got == want.astype(np.float64)).sum())
                    worst = float(np.max(np.abs(got - want) / np.maximum(1, np.abs(want))))
                    failed += worst > 1e-6
                    print(f"{name:20} {form} {protocol} bit-equal {equal}/{want.size}, worst {worst:.1e}")
    print("failed" if failed else "all agree", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
