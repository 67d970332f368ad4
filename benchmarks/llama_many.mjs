// One GGUF file by llama.cpp, for many chats at once: node llama_many.mjs FOLDER FILE THREADS CONTEXT, where FOLDER holds
// node_modules and each chat has CONTEXT tokens.
//
// Says {"ready": true} when it is ready. Then each line {"conversations": [[{"ids": […], "new": n}, …], …], "chats": n,
// "sampling": {…}} on stdin is answered by a line {"seconds": s, "waited": [{"turn": i, "first": s}, …]}. As many chats as
// asked for play the conversations, each in a sequence that keeps what it has read; `ids` follow the last answer.
import { createInterface } from "node:readline";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, file, threads, contextSize] = process.argv.slice(2);
const library = resolve(folder, "node_modules/node-llama-cpp/dist/index.js");
const { getLlama } = await import(pathToFileURL(library));

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: +threads });
const model = await llama.loadModel({ modelPath: file });

async function play({ conversations, chats, sampling }) {
  const context = await model.createContext({
    sequences: chats,
    contextSize: +contextSize,
    threads: +threads,
    batchSize: 512,
  });
  const waited = [];
  const waiting = conversations.values();
  async function visit() {
    const sequence = context.getSequence();
    for (const conversation of waiting) {
      await sequence.clearHistory();
      let last = []; // the token that the sequence has said and not read
      for (const [turn, { ids, new: wanted }] of conversation.entries()) {
        const began = performance.now();
        let made = 0;
        // A token that ends an answer is said like any other: each answer has as many as were asked for.
        for await (const token of sequence.evaluate([...last, ...ids], { ...sampling, yieldEogToken: true })) {
          if (!made) waited.push({ turn, first: (performance.now() - began) / 1000 });
          last = [token];
          if (++made === wanted) break;
        }
      }
    }
  }
  const began = performance.now();
  await Promise.all(Array.from({ length: chats }, visit));
  const seconds = (performance.now() - began) / 1000;
  await context.dispose();
  return { seconds, waited };
}

const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");

say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    say(await play(JSON.parse(line)));
  } catch (error) {
    say({ error: error.message });
  }
}
process.exit(0);
