/** Deterministic bytes that compress like program text: words of a small vocabulary, with some noise. */
export function sampleBytes(length: number, seed = 1): Uint8Array {
  const random = generator(seed);
  const words = Array.from({ length: 500 }, () =>
    Array.from({ length: 2 + (random() % 9) }, () => 97 + (random() % 26)),
  );
  const out = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const word =
      random() % 50 === 0
        ? [random() & 255, random() & 255, random() & 255]
        : (words[random() % words.length] ?? []);
    for (const byte of word) if (at < length) out[at++] = byte;
    if (at < length) out[at++] = 32;
  }
  return out;
}

/** Deterministic bytes that do not compress. */
export function noise(length: number, seed = 1): Uint8Array {
  const random = generator(seed);
  return new Uint8Array(length).map(() => random() & 255);
}

// Nearly as far back as deflate refers, and how much at a time; within a block the order changes each time.
const PERIOD = 31 * 1024;
const BLOCK = 512;
const CHUNK = 32;

/** Noise that comes again and again in another order: each span refers to all of a window that does not compress. */
export function referring(length: number, seed = 1): Uint8Array {
  const random = generator(seed);
  const out = new Uint8Array(length);
  out.set(noise(PERIOD, seed));
  for (let at = PERIOD; at < length; at += BLOCK) {
    const order = Array.from({ length: BLOCK / CHUNK }, (_, n) => ({ n, key: random() }));
    order.sort((a, b) => a.key - b.key);
    for (const [to, { n }] of order.entries()) {
      const from = at - PERIOD + n * CHUNK;
      out.copyWithin(at + to * CHUNK, from, from + CHUNK);
    }
  }
  return out;
}

/** xorshift32: the same numbers in every run. */
export function generator(seed: number): () => number {
  let state = seed * 2654435761 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
