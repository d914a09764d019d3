// One thread: `{ module, memory, stack }` first, then `{ scratch, bytes }` for every call; each is answered when done.

const port = globalThis.postMessage ? globalThis : (await import('node:worker_threads')).parentPort;
let work;

port.onmessage = async ({ data }) => {
  if (data.module) {
    const { exports } = await WebAssembly.instantiate(data.module, { env: { memory: data.memory } });
    // Instances share the memory, not the globals: each has its own place for its stack.
    exports.__stack_pointer.value = data.stack;
    work = exports.work;
  } else {
    work(data.scratch, data.bytes);
  }
  port.postMessage(null);
};
