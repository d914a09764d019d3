// Workers, each with an instance of the module on the one shared memory, that take work items side by side.

/** Bytes of a worker's stack; the kernels need a few thousand. */
const STACK = 65536;

async function newWorker(url) {
  if (globalThis.Worker) {
    const worker = new Worker(url, { type: 'module' });
    return { worker, listen: (hear) => { worker.onmessage = ({ data }) => hear(data); } };
  }
  const { Worker: NodeWorker } = await import('node:worker_threads');
  const worker = new NodeWorker(url);
  worker.unref();
  return { worker, listen: (hear) => { worker.on('message', hear); } };
}

export class Threads {
  #workers;

  constructor(workers) {
    this.#workers = workers;
  }

  static async start(module, memory, heap, count) {
    const stacks = Array.from({ length: count }, () => heap.allocate(STACK) + STACK);
    return new Threads(await Promise.all(stacks.map(async (stack) => {
      const { worker, listen } = await newWorker(new URL('./worker.js', import.meta.url));
      const hear = {};
      listen((message) => hear.next(message));
      /** Sends a message; resolves when the worker has answered. */
      const ask = (message) => new Promise((resolve) => {
        hear.next = resolve;
        worker.postMessage(message);
      });
      await ask({ module, memory, stack });
      return { worker, ask };
    })));
  }

  get count() {
    return this.#workers.length;
  }

  /** Computes the bound call, with a scratch of `bytes` bytes for each worker, one after the other from `scratch` on. */
  async work(scratch, bytes) {
    await Promise.all(this.#workers.map(({ ask }, index) => ask({ scratch: scratch + index * bytes, bytes })));
  }

  close() {
    for (const { worker } of this.#workers) worker.terminate();
  }
}
