"""ONNX Runtime com.microsoft.GroupQueryAttention with a shared past/present buffer.

Prefill feeds every token as new; decode feeds one new token on skv - 1 past ones."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from worker import Unsupported

TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def session(nodes, inputs, outputs, threads, opsets):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def keeper(w):
    """OrtValues that share NumPy's memory and live as long as the workload."""
    w.kept = []

    def value(a):
        w.kept += [a, ort.OrtValue.ortvalue_from_numpy(a)]
        return w.kept[-1]

    return value


def merge_heads(a):
    return np.ascontiguousarray(a.transpose(0, 2, 1, 3)).reshape(a.shape[0], a.shape[2], -1)


def split_heads(a, heads):
    return a.reshape(a.shape[0], a.shape[1], heads, -1).transpose(0, 2, 1, 3)


def setup(w, variant):
    if w.dtype == "bf16":
        raise Unsupported("no bf16 kernel on the CPU")
    if not w.causal:
        raise Unsupported("causal only")
    t = TYPES[w.dtype]
    info = helper.make_tensor_value_info
    kv = [w.b, w.hkv, w.skv, w.d]
    node = helper.make_node(
        "GroupQueryAttention",
        ["q", "k", "v", "pk", "pv", "lens", "total"],
        ["o", "nk", "nv"],
        domain="com.microsoft",
        num_heads=w.hq,
        kv_num_heads=w.hkv,
    )
    s = session(
        [node],
        [
            info("q", t, [w.b, w.sq, w.hq * w.d]),
            info("k", t, [w.b, w.sq, w.hkv * w.d]),
            info("v", t, [w.b, w.sq, w.hkv * w.d]),
            info("pk", t, kv),
            info("pv", t, kv),
            info("lens", TensorProto.INT32, [w.b]),
            info("total", TensorProto.INT32, [1]),
        ],
        [info("o", t, [w.b, w.sq, w.hq * w.d]), info("nk", t, kv), info("nv", t, kv)],
        w.threads,
        {"": 21, "com.microsoft": 1},
    )

    value = keeper(w)
    new = slice(w.skv - w.sq, w.skv)
    past_k, past_v = value(w.k.copy()), value(w.v.copy())
    out = value(np.zeros((w.b, w.sq, w.hq * w.d), w.q.dtype))
    io = s.io_binding()
    io.bind_ortvalue_input("q", value(merge_heads(w.q)))
    io.bind_ortvalue_input("k", value(merge_heads(w.k[:, :, new])))
    io.bind_ortvalue_input("v", value(merge_heads(w.v[:, :, new])))
    io.bind_ortvalue_input("pk", past_k)
    io.bind_ortvalue_input("pv", past_v)
    io.bind_ortvalue_input("lens", value(np.full(w.b, w.skv - 1, np.int32)))
    io.bind_ortvalue_input("total", value(np.array([w.skv], np.int32)))
    io.bind_ortvalue_output("o", out)
    io.bind_ortvalue_output("nk", past_k)
    io.bind_ortvalue_output("nv", past_v)
    w.note = f"onnxruntime {ort.__version__}"
    return lambda: s.run_with_iobinding(io), lambda: split_heads(out.numpy(), w.hq)
