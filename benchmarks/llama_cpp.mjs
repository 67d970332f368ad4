// One GGUF file by llama.cpp: node llama_cpp.mjs FOLDER FILE THREADS CONTEXT, where FOLDER holds node_modules.
//
// Says {"ready": true} when it is ready. Then each line {"ids": […], "new": n} on stdin is answered by greedy search from
// an empty cache, in a line {"first": seconds, "seconds": seconds, "tokens": n, "ids": […]} or {"error": sentence}.
import { createInterface } from "node:readline";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, file, threads, contextSize] = process.argv.slice(2);
const library = resolve(folder, "node_modules/node-llama-cpp/dist/index.js");
const { getLlama } = await import(pathToFileURL(library));

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: +threads });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ contextSize: +contextSize, threads: +threads, batchSize: 512 });

async function answer({ ids, new: wanted }) {
  if (ids.length + wanted > context.contextSize)
    throw new Error(`${ids.length} and ${wanted} tokens are more than the context of ${context.contextSize}`);
  const sequence = context.getSequence();
  try {
    const made = [];
    let first;
    const began = performance.now();
    // A token that ends an answer is said like any other: each answer has as many as were asked for.
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      first ??= performance.now();
      if (made.push(token) === wanted) break;
    }
    const ended = performance.now();
    return { first: (first - began) / 1000, seconds: (ended - began) / 1000, tokens: made.length, ids: made };
  } finally {
    sequence.dispose();
  }
}

const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");

say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    say(await answer(JSON.parse(line)));
  } catch (error) {
    say({ error: error.message });
  }
}
process.exit(0);
