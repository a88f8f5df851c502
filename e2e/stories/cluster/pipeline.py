"""Three steps, one after the other; the middle one takes as long as it is told."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output


@dsl.component(base_image="python:3.11")
def make(data: Output[Dataset]):
    with open(data.path, "w") as out:
        out.write("7")


@dsl.component(base_image="python:3.11")
def think(data: Input[Dataset], seconds: float) -> int:
    import time

    time.sleep(seconds)
    with open(data.path) as file:
        return int(file.read()) * 6


@dsl.component(base_image="python:3.11")
def say(answer: int) -> str:
    print(f"the answer is {answer}")
    return str(answer)


@dsl.pipeline(name="three-steps")
def three_steps(seconds: float = 0.0):
    data = make()
    say(answer=think(data=data.outputs["data"], seconds=seconds).output)
