"""torch.compile'd flex_attention on the CPU (needs a C++ compiler)."""

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch_sdpa import tensor

compiled = torch.compile(flex_attention, dynamic=False)


def setup(w, variant):
    torch.set_num_threads(w.threads)
    torch._dynamo.reset()
    q, k, v = tensor(w.q), tensor(w.k), tensor(w.v)
    mask = None
    if w.causal and w.sq > 1:
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, w.sq, w.skv, device="cpu")
    last = [None]

    def call():
        with torch.inference_mode():
            last[0] = compiled(q, k, v, block_mask=mask, enable_gqa=w.hq != w.hkv)

    call()
    w.note = f"torch {torch.__version__}"
    return call, lambda: last[0].float().numpy()
