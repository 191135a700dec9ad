// The page's backend in this browser: a worker runs the network and decodes.
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let number = 0;

worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.number);
  waiting.delete(data.number);
  if (data.error) reject(new Error(data.error));
  else resolve(data.result);
};
worker.onerror = (event) => {
  for (const { reject } of waiting.values()) reject(new Error(event.message ?? "the worker failed"));
  waiting.clear();
};

function ask(kind, argument) {
  return new Promise((resolve, reject) => {
    waiting.set(++number, { resolve, reject });
    worker.postMessage({ number, kind, argument });
  });
}

export const backend = {
  local: true,
  async models(say) {
    say("Loading the network …");
    return [await ask("load")];
  },
  async predict(blob, { fields }) {
    return ask("predict", { blob, fields });
  },
};
