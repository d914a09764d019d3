"""Writes heads.bin: a KV head of SmolLM2-135M with its three query heads, for the firmware.

    python3 embedded/heads.py tests/vectors/smollm2/prefill_layer00.safetensors embedded/heads.bin

38 tokens of 64 elements, little-endian f32: q [3, 38, 64], k [38, 64], v [38, 64], and out [3, 38, 64] where a token
sees itself and the 31 before it, computed in f64. Where that is all there are, it agrees with the model's own output.
"""

import json
import math
import struct
import sys

TOKENS, WINDOW, DIM, GROUP = 38, 32, 64, 3


def main(source, target):
    with open(source, "rb") as file:
        data = file.read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])

    def heads(name, count):
        """The first tokens of the first heads of [1, heads, rows, dim]."""
        info = header[name]
        first, rows = start + info["data_offsets"][0], info["shape"][2]
        row = lambda h, t: struct.unpack_from(f"<{DIM}f", data, first + 4 * DIM * (h * rows + t))
        return [[row(h, t) for t in range(TOKENS)] for h in range(count)]

    q, k, v = heads("in.query", GROUP), heads("in.key", 1)[0], heads("in.value", 1)[0]
    model = heads("out.output", GROUP)
    out = []
    for h in range(GROUP):
        for t in range(TOKENS):
            keys = range(max(0, t + 1 - WINDOW), t + 1)
            scores = [math.fsum(a * b for a, b in zip(q[h][t], k[key])) / math.sqrt(DIM) for key in keys]
            weights = [math.exp(score - max(scores)) for score in scores]
            total = math.fsum(weights)
            row = [math.fsum(w * v[key][c] for w, key in zip(weights, keys)) / total for c in range(DIM)]
            assert t >= WINDOW or max(abs(a - b) for a, b in zip(row, model[h][t])) < 1e-5
            out.append(row)
    rows = [row for head in q for row in head] + k + v + out
    with open(target, "wb") as file:
        file.writelines(struct.pack(f"<{DIM}f", *row) for row in rows)


main(*sys.argv[1:])
