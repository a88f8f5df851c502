"""Asks the model server over V2 gRPC with KServe's own stubs and compares with the fixture that xgboost made.

Usage: python e2e/checks/grpc_v2.py MODELSERVER   (needs kserve)
"""

import json
import pathlib
import subprocess
import sys

import grpc
import numpy as np
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

fixtures = pathlib.Path(__file__).parents[2] / "services/modelserver/tests/fixtures"


def main():
    command = [sys.argv[1], "--model_name=iris", f"--model_dir={fixtures}/iris.json", "--host=127.0.0.1", "--http_port=0", "--grpc_port=0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    target = child.stdout.readline().split("grpc://")[-1].strip()
    stub = GRPCInferenceServiceStub(grpc.insecure_channel(target))
    expected = json.loads((fixtures / "iris.expected.json").read_text())
    rows = np.array(expected["instances"], dtype=float).astype(np.float32)
    want = np.array(expected["predictions"], dtype=np.float32)
    while not stub.ServerReady(pb.ServerReadyRequest()).ready:
        pass
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ModelReady(pb.ModelReadyRequest(name="iris")).ready
    about = stub.ModelMetadata(pb.ModelMetadataRequest(name="iris"))
    assert list(about.inputs[0].shape) == [-1, 4] and about.platform == "xgboost_json"

    tensor = pb.ModelInferRequest.InferInputTensor(name="x", shape=rows.shape, datatype="FP32")
    raw = stub.ModelInfer(pb.ModelInferRequest(model_name="iris", id="7", inputs=[tensor], raw_input_contents=[rows.tobytes()]))
    got = np.frombuffer(raw.raw_output_contents[0], np.float32).reshape(raw.outputs[0].shape)
    assert np.array_equal(got, want) and raw.id == "7"
    tensor.contents.fp32_contents.extend(rows.ravel())
    plain = stub.ModelInfer(pb.ModelInferRequest(model_name="iris", inputs=[tensor]))
    assert np.array_equal(np.array(plain.outputs[0].contents.fp32_contents, np.float32).reshape(want.shape), want)

    def refused(code, text, **fields):
        try:
            stub.ModelInfer(pb.ModelInferRequest(**{"model_name": "iris", "inputs": [tensor], **fields}))
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (code, text), (error.code(), error.details())
        else:
            raise AssertionError(text)

    bad, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    refused(missing, 'model "other" does not exist here; this server has "iris"', model_name="other")
    refused(missing, 'model version "2" does not exist here; this server has "1"', model_version="2")
    refused(bad, 'model "iris": tensor "x", field "contents": is given beside raw_input_contents; send only one', raw_input_contents=[rows.tobytes()])
    refused(bad, 'model "iris": field "raw_input_contents": has 2 entries for 1 inputs', raw_input_contents=[b"", b""])
    wide = pb.ModelInferRequest.InferInputTensor(name="x", shape=[1, 3], datatype="FP32")
    wide.contents.fp32_contents.extend([1, 2, 3])
    refused(bad, 'model "iris": tensor "x", field "shape": is [1,3], but the model takes 4 features per row', inputs=[wide])
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="nope")
    refused(bad, 'model "iris": field "outputs": "nope" is not an output of this model, which has "output-0"', outputs=[output])
    child.terminate()
    assert child.wait(20) == 0
    print("grpc: ok")


if __name__ == "__main__":
    main()
