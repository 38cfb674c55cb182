// k completions of a picture by a pipeline file, with ONNX Runtime for JavaScript.
//
//   picme export engines/cats128 --pipeline -o cats128.onnx
//   cd examples/pipeline && npm install
//   node complete.mjs ../../cats128.onnx photo.ppm mask.pgm out [k] [seed]
//
// In a browser `complete` takes what a canvas gives: drop every fourth byte of getImageData().data.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { noise } from "./noise.mjs";

/** image: H x W x 3 bytes, mask: H x W bytes, not 0 in the hole; gives k x H x W x 3 bytes. */
export async function complete(session, image, mask, height, width, { k = 6, seed = 0n } = {}) {
  const latent = session.inputMetadata.find((one) => one.name === "normals").shape[1];
  const { uniforms, normals } = noise(seed, k, latent);
  const { pictures } = await session.run({
    image: new ort.Tensor("uint8", image, [height, width, 3]),
    mask: new ort.Tensor("uint8", mask, [height, width]),
    uniforms: new ort.Tensor("float32", uniforms, [k]),
    normals: new ort.Tensor("float32", normals, [k, latent]),
  });
  return pictures.data;
}

/** The bytes of a binary PPM or PGM file. */
function readNetpbm(path) {
  const content = readFileSync(path);
  const head = /^P[56]\s+(\d+)\s+(\d+)\s+255\s/.exec(content.toString("latin1", 0, 64));
  const [width, height] = [Number(head[1]), Number(head[2])];
  return { width, height, data: new Uint8Array(content.subarray(head[0].length)) };
}

const [model, photo, hole, out, k = "6", seed = "0"] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)));
const { width, height, data } = readNetpbm(photo);
const results = await complete(session, data, readNetpbm(hole).data, height, width, {
  k: Number(k),
  seed: BigInt(seed),
});
mkdirSync(out, { recursive: true });
const size = height * width * 3;
for (let i = 0; i < Number(k); i++) {
  const bytes = results.subarray(i * size, (i + 1) * size);
  const path = `${out}/completed_${i}.ppm`;
  writeFileSync(path, Buffer.concat([Buffer.from(`P6\n${width} ${height}\n255\n`), bytes]));
  console.log(path);
}
