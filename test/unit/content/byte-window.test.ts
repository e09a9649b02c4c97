import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { ByteWindow } from '../../../src/content/byte-window.ts';

async function* chunked(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    yield bytes.subarray(at, at + size);
    at += size;
  }
  yield bytes.subarray(at);
}

describe('a window over a stream', () => {
  test('ranges that go forward, even overlapping by one byte, are the bytes of the blob', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        fc.array(fc.nat(20)),
        fc.array(fc.tuple(fc.nat(30), fc.nat(60), fc.boolean())),
        async (bytes, sizes, ranges) => {
          let arrived = 0;
          const window = new ByteWindow(chunked(bytes, sizes), (count) => {
            arrived += count;
          });
          let at = 0;
          for (const [gap, length, overlap] of ranges) {
            const offset = Math.max(0, at + gap - (overlap && gap === 0 ? 1 : 0));
            if (offset + length > bytes.length) break;
            expect(await window.bytes(offset, length)).toEqual(bytes.slice(offset, offset + length));
            at = offset + length;
          }
          expect(arrived).toBeLessThanOrEqual(bytes.length);
        },
      ),
    );
  });

  test('a body that ends too early says so', async () => {
    const window = new ByteWindow(chunked(new Uint8Array(10), []), () => {});
    expect(window.bytes(5, 6)).rejects.toThrow('the body ended at byte 10, before byte 11');
  });

  test('cancelling an unread body still ends it', async () => {
    let ended = false;
    async function* body() {
      try {
        yield new Uint8Array(1);
        yield new Uint8Array(1);
      } finally {
        ended = true;
      }
    }
    await new ByteWindow(body(), () => {}).cancel();
    expect(ended).toBe(true);
  });
});
