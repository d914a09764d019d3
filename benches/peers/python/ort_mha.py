"""ONNX Runtime com.microsoft.MultiHeadAttention; K/V expanded beforehand for GQA."""

import numpy as np
import onnxruntime as ort
from onnx import helper
from ort_gqa import TYPES, keeper, merge_heads, session, split_heads
from worker import Unsupported


def setup(w, variant):
    if w.dtype != "f32":
        raise Unsupported("f32 only on the CPU")
    if w.kv_bytes * w.hq // w.hkv > 2**30:
        raise Unsupported("expanded K/V too large")
    t = TYPES[w.dtype]
    info = helper.make_tensor_value_info
    node = helper.make_node(
        "MultiHeadAttention",
        ["q", "k", "v"],
        ["o"],
        domain="com.microsoft",
        num_heads=w.hq,
        unidirectional=int(w.causal and w.sq > 1),
    )
    width = w.hq * w.d
    s = session(
        [node],
        [info("q", t, [w.b, w.sq, width]), info("k", t, [w.b, w.skv, width]), info("v", t, [w.b, w.skv, width])],
        [info("o", t, [w.b, w.sq, width])],
        w.threads,
        {"": 21, "com.microsoft": 1},
    )
    value = keeper(w)
    group = w.hq // w.hkv
    out = value(np.zeros((w.b, w.sq, width), w.q.dtype))
    io = s.io_binding()
    io.bind_ortvalue_input("q", value(merge_heads(w.q)))
    io.bind_ortvalue_input("k", value(merge_heads(np.repeat(w.k, group, 1))))
    io.bind_ortvalue_input("v", value(merge_heads(np.repeat(w.v, group, 1))))
    io.bind_ortvalue_output("o", out)
    w.note = f"onnxruntime {ort.__version__}"
    return lambda: s.run_with_iobinding(io), lambda: split_heads(out.numpy(), w.hq)
