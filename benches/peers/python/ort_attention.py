"""The standard ONNX Attention operator (opset 23) as ONNX Runtime computes it."""

import numpy as np
import onnxruntime as ort
from onnx import helper
from ort_gqa import TYPES, keeper, session
from worker import Unsupported


def setup(w, variant):
    if w.dtype == "bf16":
        raise Unsupported("no bf16 kernel on the CPU")
    t = TYPES[w.dtype]
    info = helper.make_tensor_value_info
    node = helper.make_node("Attention", ["q", "k", "v"], ["o"], is_causal=int(w.causal and w.sq > 1))
    qs, ks = list(w.q.shape), list(w.k.shape)
    s = session([node], [info("q", t, qs), info("k", t, ks), info("v", t, ks)], [info("o", t, qs)], w.threads, {"": 23})
    value = keeper(w)
    out = value(np.zeros_like(w.q))
    io = s.io_binding()
    for name in "qkv":
        io.bind_ortvalue_input(name, value(getattr(w, name)))
    io.bind_ortvalue_output("o", out)
    w.note = f"onnxruntime {ort.__version__}"
    return lambda: s.run_with_iobinding(io), lambda: out.numpy()
