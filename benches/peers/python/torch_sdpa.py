"""torch.nn.functional.scaled_dot_product_attention; K/V shared (gqa) or pre-expanded."""

import torch
import torch.nn.functional as F
from worker import Unsupported


def tensor(a):
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view("u2").view("i2")).view(torch.bfloat16)
    return torch.from_numpy(a)


def setup(w, variant):
    if variant == "expanded" and w.hq == w.hkv:
        raise Unsupported("same as gqa")
    torch.set_num_threads(w.threads)
    q, k, v = tensor(w.q), tensor(w.k), tensor(w.v)
    if variant == "expanded":
        if w.kv_bytes * w.hq // w.hkv > 2**31:
            raise Unsupported("expanded K/V too large")
        k, v = (x.repeat_interleave(w.hq // w.hkv, 1) for x in (k, v))
    gqa = variant == "gqa" and w.hq != w.hkv
    causal = bool(w.causal and w.sq > 1)
    last = [None]

    def call():
        with torch.inference_mode():
            last[0] = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)

    w.note = f"torch {torch.__version__}"
    return call, lambda: last[0].float().numpy()
