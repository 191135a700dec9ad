// Image bytes → people: preprocessing, ONNX Runtime's WebAssembly, decoding.
import * as ort from "./ort/ort.wasm.min.mjs";
import { Codec } from "./codec.js";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads need headers of the server

let session = null;
let codec = null;

async function load() {
  const model = await (await fetch(new URL("./model.json", import.meta.url))).json();
  const bytes = await (await fetch(new URL("./model.onnx", import.meta.url))).arrayBuffer();
  session = await ort.InferenceSession.create(bytes);
  codec = new Codec(model);
  return model.describe;
}

async function predict({ blob, fields }) {
  const start = performance.now();
  const image = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  const read = performance.now();
  const view = codec.preprocess(pixels);
  const prepared = performance.now();
  const images = new ort.Tensor("uint8", view.data, [1, view.height, view.width, 3]);
  const outputs = await session.run({ images });
  const computed = performance.now();
  const people = codec.decode(outputs, [image.height, image.width]);
  const decoded = performance.now();
  const found = {
    image: { width: image.width, height: image.height },
    method: "bottom-up",
    people,
    seconds: {
      read: (read - start) / 1000,
      preprocess: (prepared - read) / 1000,
      forward: (computed - prepared) / 1000,
      decode: (decoded - computed) / 1000,
      total: (decoded - start) / 1000,
    },
  };
  const size = [image.height, image.width];
  if (fields.includes("heatmap")) found.heatmap = await createImageBitmap(codec.heatmap(outputs, size));
  if (fields.includes("tag_map")) found.tag_map = await createImageBitmap(codec.tagMap(outputs, size));
  return found;
}

self.onmessage = async ({ data }) => {
  try {
    const result = data.kind === "load" ? await load() : await predict(data.argument);
    self.postMessage({ number: data.number, result });
  } catch (error) {
    self.postMessage({ number: data.number, error: String(error?.message ?? error) });
  }
};
