#!/usr/bin/env python3
"""The raw exports of dist/scalar.wasm in wasmtime, outside any JavaScript engine: python3 test/wasmtime_exports.py"""

import pathlib
import struct

import wasmtime

store = wasmtime.Store()
module = wasmtime.Module.from_file(store.engine, str(pathlib.Path(__file__).parent.parent / "dist" / "scalar.wasm"))
assert not list(module.imports), "needs nothing from its host"
exports = wasmtime.Instance(store, module, []).exports(store)
memory = exports["memory"]
memory.grow(store, 16)

# One query of 2 heads on 1 of 4, which is 0: the output is the mean of the 3 values.
heap = exports["__heap_base"].value(store) + 63 & ~63
q, k, v, out, scratch = (heap + 1024 * i for i in range(5))
memory.write(store, struct.pack("<12f", *range(12)), v)


def tensor(address, length, head, row):
    return [address, length, 0, head, row, 0]


shape = [1, 2, 1, 1, 3, 4, 4]
storage_stage_given = [0, 0, 0, 0, 0]
modifiers = [0] * 5
tensors = tensor(q, 8, 4, 4) + tensor(k, 12, 12, 4) + tensor(v, 12, 12, 4) + tensor(out, 8, 4, 4) + [0] * 24
words = shape + storage_stage_given + modifiers + tensors + [0] * 8
call = exports["call"](store)
memory.write(store, struct.pack(f"<{len(words)}I", *words), call)
needed = exports["bind"](store)
assert needed > 0
exports["work"](store, scratch, needed)
got = struct.unpack("<8f", memory.read(store, out, out + 32))
assert all(abs(a - b) < 1e-6 for a, b in zip(got, [4, 5, 6, 7] * 2)), got

# kv_heads = 0 is refused: kind 1, operand 2.
memory.write(store, struct.pack("<I", 0), call + 8)
assert exports["bind"](store) == -1
failure = exports["failure"](store)
assert struct.unpack("<2I", memory.read(store, failure, failure + 8)) == (1, 2)
print("the exports passed")
