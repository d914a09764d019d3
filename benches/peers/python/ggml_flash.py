"""ggml_flash_attn_ext (llama.cpp) through the libraries inside llama-cpp-python.

ggml takes f32 queries; K and V have the workload's dtype, or Q8_0 blocks (variant)."""

import ctypes as C
import importlib.util
from pathlib import Path

import numpy as np
from worker import Unsupported

LIB = Path(importlib.util.find_spec("llama_cpp").origin).parent / "lib"
base = C.CDLL(str(LIB / "libggml-base.so"), C.RTLD_GLOBAL)
cpu = C.CDLL(str(LIB / "libggml-cpu.so"), C.RTLD_GLOBAL)
TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8}
P, I64, F = C.c_void_p, C.c_int64, C.c_float


class InitParams(C.Structure):
    _fields_ = [("size", C.c_size_t), ("buffer", P), ("no_alloc", C.c_bool)]


def declare(lib, name, result, *args):
    f = getattr(lib, name)
    f.restype, f.argtypes = result, args
    return f


init = declare(base, "ggml_init", P, InitParams)
new_4d = declare(base, "ggml_new_tensor_4d", P, P, C.c_int, I64, I64, I64, I64)
data_of = declare(base, "ggml_get_data", P, P)
nbytes = declare(base, "ggml_nbytes", C.c_size_t, P)
flash = declare(base, "ggml_flash_attn_ext", P, P, P, P, P, P, F, F, F)
set_prec = declare(base, "ggml_flash_attn_ext_set_prec", None, P, C.c_int)
new_graph = declare(base, "ggml_new_graph", P, P)
expand = declare(base, "ggml_build_forward_expand", None, P, P)
quantize = declare(base, "ggml_quantize_chunk", C.c_size_t, C.c_int, P, P, I64, I64, I64, P)
compute = declare(base, "ggml_backend_graph_compute", C.c_int, P, P)
version = declare(base, "ggml_version", C.c_char_p)
backend_init = declare(cpu, "ggml_backend_cpu_init", P)
set_threads = declare(cpu, "ggml_backend_cpu_set_n_threads", None, P, C.c_int)
backend = backend_init()


def setup(w, variant):
    if variant and w.dtype != "f16":
        raise Unsupported("quantised K/V is compared with the f16 workloads")
    size = w.q.size * 12 + w.kv_bytes * 2 + w.sq * w.skv * 4 + (1 << 24)
    memory = np.empty(size, np.uint8)  # NumPy asks for huge pages
    ctx = init(InitParams(size, memory.ctypes.data, False))

    def tensor(kind, a):
        t = new_4d(ctx, TYPES[kind], *a.shape[::-1])
        if kind == "q8_0":
            a = np.ascontiguousarray(a, np.float32)
            quantize(8, a.ctypes.data, data_of(t), 0, a.size // a.shape[-1], a.shape[-1], None)
        else:
            C.memmove(data_of(t), a.ctypes.data, nbytes(t))
        return t

    kind = variant or w.dtype
    q, k, v = tensor("f32", w.q.astype(np.float32)), tensor(kind, w.k), tensor(kind, w.v)
    mask = None
    if w.causal and w.sq > 1:
        seen = np.tri(w.sq, w.skv, w.skv - w.sq, bool)
        mask = tensor("f16", np.where(seen, 0, -np.inf).astype(np.float16)[None, None])
    out = flash(ctx, q, k, v, mask, w.d**-0.5, 0.0, 0.0)
    set_prec(out, 10)
    graph = new_graph(ctx)
    expand(graph, out)
    set_threads(backend, w.threads)
    w.note = f"ggml {version().decode()}"

    def call():
        compute(backend, graph)

    def output():
        start = data_of(out) - memory.ctypes.data
        flat = memory[start : start + w.q.size * 4].view(np.float32)
        return flat.reshape(w.b, w.sq, w.hq, w.d).transpose(0, 2, 1, 3)

    return call, output
