#!/usr/bin/env python3
"""Runs a wasm32-wasip1 program in wasmtime: a cargo runner, `wasi.py PROGRAM [ARGUMENT...]`.

The program sees the working directory, read-only, at its own path, and the GQA_* and RUST_* variables.
Relaxed SIMD takes the instructions of this machine, as engines do.
"""

import os
import sys

import wasmtime

config = wasmtime.Config()
config.wasm_relaxed_simd = True
engine = wasmtime.Engine(config)

wasi = wasmtime.WasiConfig()
wasi.argv = sys.argv[1:]
wasi.env = [pair for pair in os.environ.items() if pair[0].startswith(("GQA_", "RUST_"))]
wasi.inherit_stdout()
wasi.inherit_stderr()
here = os.getcwd()
wasi.preopen_dir(here, here, False)
wasi.preopen_dir(here, ".", False)

store = wasmtime.Store(engine)
store.set_wasi(wasi)
linker = wasmtime.Linker(engine)
linker.define_wasi()
module = wasmtime.Module.from_file(engine, sys.argv[1])
instance = linker.instantiate(store, module)
status = 0
try:
    instance.exports(store)["_start"](store)
except wasmtime.ExitTrap as exit:
    status = exit.code
except wasmtime.WasmtimeError as error:
    print(error, file=sys.stderr)
    status = 134
sys.stdout.flush()
# The engine need not be torn down.
os._exit(status)
