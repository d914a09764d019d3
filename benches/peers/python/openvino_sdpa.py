"""OpenVINO ScaledDotProductAttention; K/V expanded beforehand for GQA."""

import numpy as np
import openvino as ov
from openvino import opset13 as op
from worker import Unsupported

core = ov.Core()


def setup(w, variant):
    if w.dtype == "f16":
        raise Unsupported("no f16 execution on this CPU")
    if w.kv_bytes * w.hq // w.hkv > 2**30:
        raise Unsupported("expanded K/V too large")
    kind = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[w.dtype]
    group = w.hq // w.hkv
    data = w.kept = [w.q, np.repeat(w.k, group, 1), np.repeat(w.v, group, 1)]
    params = [op.parameter(list(a.shape), kind) for a in data]
    sdpa = op.scaled_dot_product_attention(*params, causal=bool(w.causal and w.sq > 1))
    compiled = core.compile_model(
        ov.Model([sdpa], params),
        "CPU",
        {"INFERENCE_NUM_THREADS": w.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": kind.to_string()},
    )
    request = compiled.create_infer_request()
    for i, a in enumerate(data):
        if w.dtype == "bf16":
            t = ov.Tensor(kind, ov.Shape(a.shape))
            t.data.view(np.uint16)[...] = a.view(np.uint16)
        else:
            t = ov.Tensor(a, shared_memory=True)
        request.set_input_tensor(i, t)

    def output():
        a = request.get_output_tensor(0).data
        return a.view(w.q.dtype) if w.dtype == "bf16" else a

    w.note = f"openvino {ov.__version__.split('-')[0]}"
    return request.infer, output
