"""AMD's zentorch_sdpa operator for EPYC (ZenDNN). Only the compiled operator is loaded,
from PEERS_FOLDER (a folder with zentorch and its PyTorch, see setup.sh)."""

import os
from pathlib import Path

import torch
from torch_sdpa import tensor
from worker import Unsupported

torch.ops.load_library(str(Path(os.environ["PEERS_FOLDER"]) / "zentorch" / "libzentorch.so"))
sdpa = torch.ops.zentorch.zentorch_sdpa


def setup(w, variant):
    if w.dtype == "f16":
        raise Unsupported("f32 and bf16 only")
    torch.set_num_threads(w.threads)
    q, k, v = tensor(w.q), tensor(w.k), tensor(w.v)
    causal = bool(w.causal and w.sq > 1)
    last = [None]

    def call():
        with torch.inference_mode():
            last[0] = sdpa(q, k, v, 0.0, causal)[0]

    w.note = f"zentorch on torch {torch.__version__}"
    return call, lambda: last[0].float().numpy()
