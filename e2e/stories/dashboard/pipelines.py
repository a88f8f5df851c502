"""Small pipelines to look at."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

IMAGE = "python:3.11"


@dsl.component(base_image=IMAGE)
def make(rows: int, data: Output[Dataset]) -> str:
    import time

    for row in range(rows):
        print("made row", row, flush=True)
        time.sleep(0.5)  # so that there is something to watch
    with open(data.path, "w") as file:
        file.write("\n".join(str(row) for row in range(rows)))
    data.metadata["rows"] = rows
    return "all made"


@dsl.component(base_image=IMAGE)
def measure(data: Input[Dataset], metrics: Output[Metrics]) -> int:
    with open(data.path) as file:
        total = sum(int(line) for line in file)
    print("the sum is", total)
    metrics.log_metric("total", total)
    return total


@dsl.component(base_image=IMAGE)
def tell(total: int, note: str):
    print("told", total, note)


@dsl.pipeline(name="three-steps")
def three_steps(rows: int = 8, note: str = "a note"):
    made = make(rows=rows)
    measured = measure(data=made.outputs["data"])
    tell(total=measured.outputs["Output"], note=note)


@dsl.component(base_image=IMAGE)
def broken():
    raise ValueError("this step cannot work")


@dsl.pipeline(name="one-failure")
def one_failure():
    broken()
