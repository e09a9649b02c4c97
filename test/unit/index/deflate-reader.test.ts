import { describe, expect, test } from 'bun:test';
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { DeflateReader, INPUT_BYTES } from '../../../src/index/deflate-reader.ts';
import { spliceDeflate } from '../../../src/index/deflate-splice.ts';
import { WINDOW_BYTES } from '../../../src/index/window.ts';
import { concat } from '../../fixtures/tree/index.ts';
import { generator, noise, sampleBytes } from './support/data.ts';

/** WebAssembly memories are dear: most tests share one. */
const shared = new DeflateReader(5000);

/** All that the reader makes of `data`, fed in pieces of `feed` bytes; undefined when it refuses. */
function inflated(data: Uint8Array, reader = shared, feed = INPUT_BYTES): Uint8Array | undefined {
  reader.reset();
  const parts: Uint8Array[] = [];
  for (let taken = 0; ; ) {
    const part = data.subarray(taken, taken + Math.min(feed, INPUT_BYTES - reader.inputEnd));
    reader.input.set(part, reader.inputEnd);
    reader.inputEnd += part.length;
    taken += part.length;
    reader.final = taken === data.length;
    for (;;) {
      const stop = reader.run();
      parts.push(reader.output.slice(WINDOW_BYTES, reader.filled));
      reader.slide();
      if (stop === 'end') return concat(parts);
      if (stop === 'broken' || (stop === 'input' && reader.final)) return undefined;
      if (stop === 'input') break;
    }
    reader.compact();
  }
}

function byZlib(data: Uint8Array): Uint8Array | undefined {
  try {
    return new Uint8Array(inflateRawSync(data));
  } catch {
    return undefined;
  }
}

const repeated = (text: string, length: number) => new Uint8Array(Buffer.alloc(length, text));

const INPUTS: readonly (readonly [name: string, data: Uint8Array])[] = [
  ['nothing', new Uint8Array(0)],
  ['one byte', new Uint8Array([7])],
  ['text', sampleBytes(300_000)],
  ['noise', noise(200_000)],
  ['zeros', new Uint8Array(500_000)],
  ...[2, 3, 4, 5, 6, 7, 8, 9, 13].map(
    (period) => [`a period of ${period}`, repeated('abcdefghijklm'.slice(0, period), 70_000)] as const,
  ),
  ['matches at the full distance', concat([noise(32_768, 5), noise(32_768, 5), noise(32_768, 5)])],
  ['every byte value', new Uint8Array(65_536).map((_, at) => at & 255)],
];

describe('the reader inflates what zlib deflated', () => {
  for (const [name, data] of INPUTS) {
    test(name, () => {
      for (const options of [
        { level: 1 },
        { level: 6 },
        { level: 9 },
        { level: 0 },
        { strategy: constants.Z_FIXED },
        { strategy: constants.Z_HUFFMAN_ONLY },
        { strategy: constants.Z_RLE },
        { memLevel: 1 },
      ]) {
        const deflated = deflateRawSync(data, options);
        expect(Buffer.from(inflated(deflated) ?? 'refused').equals(data)).toBe(true);
      }
    });
  }

  test('in pieces of any length, into a buffer of any size', () => {
    const data = concat([sampleBytes(40_000), noise(5000), new Uint8Array(40_000)]);
    const deflated = deflateRawSync(data);
    for (const capacity of [1, 300, 65_536]) {
      const reader = new DeflateReader(capacity);
      for (const feed of [1, 2, 15, 16, 17, 569, 4096]) {
        expect(Buffer.from(inflated(deflated, reader, feed) ?? 'refused').equals(data)).toBe(true);
      }
    }
  });
});

describe('the reader and zlib agree', () => {
  test('on streams with damage: both refuse, or both read the same', () => {
    const random = generator(42);
    let [accepted, refused] = [0, 0];
    for (let run = 0; run < 4000; run++) {
      const data =
        random() % 2 === 0
          ? sampleBytes(1 + (random() % 2000), run + 1)
          : noise(1 + (random() % 300), run + 1);
      const options = [
        {},
        { strategy: constants.Z_FIXED },
        { level: 0 },
        { level: 1 },
        { strategy: constants.Z_HUFFMAN_ONLY },
      ][random() % 5];
      const deflated = new Uint8Array(deflateRawSync(data, options));
      const at = random() % Math.min(deflated.length, 200);
      if (random() % 4 === 0) deflated.set([random() & 255], at);
      else deflated.set([(deflated[at] ?? 0) ^ (1 << (random() & 7))], at);
      const expected = byZlib(deflated);
      const actual = inflated(deflated);
      if (expected === undefined) refused++;
      else accepted++;
      if (Buffer.from(expected ?? 'refused').equals(Buffer.from(actual ?? 'refused'))) continue;
      throw new Error(`run ${run}: ${Buffer.from(deflated).toString('hex').slice(0, 2000)}`);
    }
    expect(Math.min(accepted, refused)).toBeGreaterThan(100);
  });

  test('on streams that are cut off: both refuse', () => {
    const deflated = deflateRawSync(sampleBytes(3000));
    for (let length = 0; length < deflated.length; length++)
      expect(inflated(deflated.slice(0, length))).toBeUndefined();
  });

  test('on bytes that never were deflate', () => {
    const random = generator(9);
    for (let run = 0; run < 3000; run++) {
      const bytes = noise(1 + (random() % 400), run + 1);
      // Dynamic headers of noise are what exercises the tables.
      bytes[0] = ((bytes[0] ?? 0) & ~7) | [1, 3, 5][random() % 3]!;
      const expected = byZlib(bytes);
      expect(Buffer.from(inflated(bytes) ?? 'refused').equals(Buffer.from(expected ?? 'refused'))).toBe(true);
    }
  });
});

test('cut between any two symbols, both parts can be spliced and inflated', () => {
  const data = concat([sampleBytes(6000), noise(500), new Uint8Array(2000)]);
  for (const options of [{}, { strategy: constants.Z_FIXED }, { strategy: constants.Z_HUFFMAN_ONLY }]) {
    const deflated = new Uint8Array(deflateRawSync(data, options));
    for (let capacity = 1; capacity < 7000; capacity += 97) {
      const reader = new DeflateReader(capacity);
      reader.input.set(deflated);
      reader.inputEnd = deflated.length;
      reader.final = true;
      if (reader.run() !== 'output') continue;
      const open = reader.openBlock();
      if (open === undefined) throw new Error('it stopped in no block');
      const at = reader.filled - WINDOW_BYTES;
      const { bit } = reader;
      const none = { bytes: new Uint8Array(0), length: 0 };
      const first = spliceDeflate({
        data: deflated.subarray(0, Math.ceil(bit / 8)),
        bits: 0,
        endBits: bit % 8 === 0 ? 8 : bit % 8,
        window: new Uint8Array(0),
        prefix: none,
        suffix: open.endCode,
        endsStream: open.last,
      });
      const second = spliceDeflate({
        data: deflated.subarray(Math.floor(bit / 8)),
        bits: bit % 8,
        endBits: 8,
        window: data.subarray(0, at),
        prefix: open.header,
        suffix: none,
        endsStream: true,
      });
      expect(Buffer.from(byZlib(first) ?? 'refused').equals(data.subarray(0, at))).toBe(true);
      expect(Buffer.from(byZlib(second) ?? 'refused').equals(data)).toBe(true);
      expect(Bun.inflateSync(new Uint8Array(second), { library: 'libdeflate' }).length).toBe(data.length);
    }
  }
});
