// The noise of result i of a seed, as docs/sampling.md specifies it: with it the pipeline gives the
// results of picme_rt.Session. log, sin and cos are JavaScript's own: a few units in the last place.

const LOW = 0xffffffffn;

function philox(counter, key) {
  let [a, b, c, d] = counter.map(BigInt);
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const p = 0xd2511f53n * a, q = 0xcd9e8d57n * c;
    [a, b, c, d] = [(q >> 32n) ^ b ^ k0, q & LOW, (p >> 32n) ^ d ^ k1, p & LOW];
    k0 = (k0 + 0x9e3779b9n) & LOW;
    k1 = (k1 + 0xbb67ae85n) & LOW;
  }
  return [a, b, c, d].map(Number);
}

const uniform = (word) => ((word >>> 9) + 0.5) * 2 ** -23;

/** Uniforms (k) and normals (k x latent) of results 0 to k - 1; `seed` is a BigInt. */
export function noise(seed, k, latent) {
  const key = [seed & LOW, seed >> 32n];
  const uniforms = new Float32Array(k), normals = new Float32Array(k * latent);
  for (let i = 0; i < k; i++) {
    uniforms[i] = uniform(philox([0, 0, i, 0], key)[0]);
    for (let place = 0; place < latent; place += 4) {
      const [u0, u1, u2, u3] = philox([0, place / 4 + 1, i, 0], key).map(uniform);
      const r = Math.sqrt(-2 * Math.log(u0)), s = Math.sqrt(-2 * Math.log(u2));
      const t = 2 * Math.PI * u1, v = 2 * Math.PI * u3;
      const four = [r * Math.cos(t), r * Math.sin(t), s * Math.cos(v), s * Math.sin(v)];
      normals.set(four.slice(0, latent - place), i * latent + place);
    }
  }
  return { uniforms, normals };
}
