#!/usr/bin/env python3
"""The raw exports of each module in wasmtime, outside any JavaScript engine: python3 test/wasmtime_exports.py

Vectors of SmolLM2 (prompts and decoding, f32) within their tolerances, and a refusal. The modules that share memory are
left to node, which has threads for them.
"""

import json
import math
import pathlib
import struct

import wasmtime

PACKAGE = pathlib.Path(__file__).parent.parent
VECTORS = PACKAGE.parent / "tests" / "vectors" / "smollm2"
MODULES = ["scalar", "simd128", "relaxed-simd", "compact"]


def read_safetensors(path):
    """The metadata, and each f32 tensor as its shape and bytes."""
    file = path.read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    metadata = header.pop("__metadata__")
    body = file[8 + length :]
    return metadata, {
        name: (entry["shape"], body[slice(*entry["data_offsets"])])
        for name, entry in header.items()
        if entry["dtype"] == "F32"
    }


class Module:
    def __init__(self, name):
        self.store = wasmtime.Store()
        module = wasmtime.Module.from_file(self.store.engine, str(PACKAGE / "dist" / f"{name}.wasm"))
        assert not list(module.imports), "needs nothing from its host"
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.memory = self.exports["memory"]
        self.memory.grow(self.store, 64)
        self.free = self.exports["__heap_base"].value(self.store)

    def call(self, name, *arguments):
        return self.exports[name](self.store, *arguments)

    def room(self, size):
        """The address of `size` bytes."""
        at = self.free + 63 & ~63
        self.free = at + size
        return at

    def tensor(self, shape, data):
        """The words of a contiguous f32 tensor in the memory: address, length, strides."""
        at = self.room(len(data))
        self.memory.write(self.store, data, at)
        batch, heads, rows, dim = shape
        return [at, len(data) // 4, heads * rows * dim, rows * dim, dim, 1]

    def write(self, sizes, tensors):
        given, modifiers = 1 << 3, [0] * 5  # A right window of 0: causal.
        words = sizes + [0] * 4 + [given] + modifiers + sum(tensors, []) + [0] * (4 * 6 + 4 * 2)
        self.memory.write(self.store, struct.pack(f"<{len(words)}I", *words), self.call("call"))

    def attend(self, q, k, v):
        """The output, f32, of causal attention on operands as `read_safetensors` has them."""
        (batch, q_heads, q_len, head_dim), (_, kv_heads, kv_len, _) = q[0], k[0]
        shape = [batch, q_heads, q_len, v[0][3]]
        size = 4 * math.prod(shape)
        out = self.tensor(shape, bytes(size))
        sizes = [batch, q_heads, kv_heads, q_len, kv_len, head_dim, shape[3]]
        self.write(sizes, [self.tensor(*q), self.tensor(*k), self.tensor(*v), out])
        needed = self.call("bind", 1)
        assert needed > 0
        self.call("work", self.room(needed), needed)
        return struct.unpack(f"<{size // 4}f", self.memory.read(self.store, out[0], out[0] + size))


def check_vectors(module):
    files = sorted(VECTORS.glob("*.safetensors"))
    assert len(files) == 7, files
    for file in files:
        metadata, tensors = read_safetensors(file)
        free = module.free
        assert metadata["attr.causal_lower_right"] == "1" and float(metadata["attr.scale"]) == 64**-0.5, file
        got = module.attend(tensors["in.query"], tensors["in.key"], tensors["in.value"])
        module.free = free
        wanted = struct.unpack(f"<{len(got)}f", tensors["out.output"][1])
        rtol, atol = float(metadata["rtol"]), float(metadata["atol"])
        # The comparison is also false for NaN.
        wrong = [i for i, (a, b) in enumerate(zip(got, wanted)) if not abs(a - b) <= atol + rtol * abs(b)]
        assert not wrong, f"{file.name}: element {wrong[0]} is {got[wrong[0]]}, wanted {wanted[wrong[0]]}"
    return len(files)


def check_refusal(module):
    """kv_heads = 0 is refused: kind 1, operand 2."""
    module.write([1, 2, 0, 1, 3, 4, 4], [[0] * 6] * 4)
    assert module.call("bind", 1) == -1
    failure = module.call("failure")
    assert struct.unpack("<2I", module.memory.read(module.store, failure, failure + 8)) == (1, 2)


for name in MODULES:
    module = Module(name)
    passed = check_vectors(module)
    check_refusal(module)
    print(f"{name}: {passed} vectors passed in wasmtime")
