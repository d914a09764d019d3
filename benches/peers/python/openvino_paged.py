"""OpenVINO PagedAttention; each call also writes its new keys and values to the cache."""

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino.op import _PagedAttentionExtension
from worker import Unsupported

core = ov.Core()


def setup(w, variant):
    if w.dtype == "f16":
        raise Unsupported("no f16 execution on this CPU")
    if not w.causal:
        raise Unsupported("causal only")
    kind = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[w.dtype]

    def constant(shape, dtype, value=0):
        return op.constant(np.full(shape, value, dtype))

    data = [op.parameter([-1, heads * w.d], kind) for heads in (w.hq, w.hkv, w.hkv)]
    caches = [op.parameter(ov.PartialShape.dynamic(4), ov.Type.dynamic) for _ in "kv"]
    index = [op.parameter([-1], ov.Type.i32) for _ in range(4)]
    longest = op.parameter([], ov.Type.i32)
    i, f = np.int32, np.float32
    pa = _PagedAttentionExtension(
        [
            x.output(0)
            for x in (
                *data,
                *caches,
                *index,
                constant([], f, w.d**-0.5),
                constant([], i),
                constant([0], f),
                longest,
                constant([0], i),  # no score aggregation
                constant([0], i),
                constant([0], i),
                constant([0], f),  # no rotation
                constant([0], f),
                constant([], i),
                constant([], i),  # no sparse attention
                constant([0], f),  # no sinks
                constant([], i),
                constant([0], i),
                constant([0], i),
                constant([0], i),
                constant([0], i),
                constant([0], np.uint8),
                constant([0], i),
            )
        ]
    )
    info = pa.get_rt_info()
    for side in "kv":
        info[f"num_{side}_heads"], info[f"{side}_head_size"] = w.hkv, w.d
    params = [*data, *caches, *index, longest]
    for p, name in zip(params, "q k v key_cache.0 value_cache.0 a b c d e".split()):
        p.output(0).get_tensor().set_names({name})
    model = ov.Model([op.result(pa.output(0))], params)
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": w.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": kind.to_string(),
            "KV_CACHE_PRECISION": kind.to_string(),
        },
    )
    request = compiled.create_infer_request()

    block = compiled.input(3).get_partial_shape()[2].get_length()
    pages = -(-w.skv // block)
    stores = []
    for slot in (3, 4):
        shape = [x.get_length() if x.is_static else w.b * pages for x in compiled.input(slot).get_partial_shape()]
        stores.append(ov.Tensor(compiled.input(slot).get_element_type(), ov.Shape(shape)))

    for store, a in zip(stores, (w.k, w.v)):  # (pages, heads, block, d), unquantised
        a = np.pad(a, ((0, 0), (0, 0), (0, pages * block - w.skv), (0, 0)))
        a = a.reshape(w.b, w.hkv, pages, block, w.d).swapaxes(1, 2).reshape(store.shape)
        store.data.view(np.uint8)[...] = np.ascontiguousarray(a).view(np.uint8)

    new = slice(w.skv - w.sq, w.skv)
    for slot, a in enumerate((w.q, w.k[:, :, new], w.v[:, :, new])):
        rows = np.ascontiguousarray(a.transpose(0, 2, 1, 3)).reshape(w.b * w.sq, -1)
        t = ov.Tensor(kind, ov.Shape(rows.shape))
        t.data.view(np.uint8)[...] = rows.view(np.uint8)
        request.set_input_tensor(slot, t)
    begins = np.arange(w.b + 1, dtype=i)
    tensors = [
        *stores,
        *(
            ov.Tensor(a.astype(i))
            for a in (
                np.full(w.b, w.skv - w.sq),
                begins * w.sq,
                np.arange(w.b * pages),
                begins * pages,
                np.array(w.skv),
            )
        ),
    ]
    for slot, t in enumerate(tensors):
        request.set_input_tensor(3 + slot, t)

    def output():
        a = request.get_output_tensor(0).data
        a = a.view(w.q.dtype) if w.dtype == "bf16" else a
        return a.reshape(w.b, w.sq, w.hq, w.d).transpose(0, 2, 1, 3)

    w.note = f"openvino {ov.__version__.split('-')[0]}"
    return request.infer, output
