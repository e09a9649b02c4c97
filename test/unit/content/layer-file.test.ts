import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import type { LayerContent, LayerLayout } from '../../../src/content/index.ts';
import { LayerContent as Layer } from '../../../src/content/layer-content.ts';
import { layerFileName, layerFileShape, openLayerFile } from '../../../src/content/layer-file.ts';
import { layoutOfSpans } from '../../../src/content/layer-layout.ts';
import { ManualClock } from './support/clock.ts';
import { noise } from './support/image.ts';
import { scratch } from './support/scratch.ts';

const { store, directory } = scratch();
const LENGTH = 5000;

function makeLayout(
  count: number,
  digest = `sha256:${'a'.repeat(64)}`,
  seed = 0,
): { layout: LayerLayout; spans: Uint8Array[] } {
  const spans = Array.from({ length: count }, (_, n) => noise(LENGTH, seed + n));
  const layout = layoutOfSpans(digest, count, (n) => ({
    uncompressedOffset: n * LENGTH,
    uncompressedLength: LENGTH,
    sha256: new Bun.CryptoHasher('sha256').update(spans[n] ?? new Uint8Array()).digest(),
  }));
  return { layout, spans };
}

async function keepAll(
  content: LayerContent,
  spans: readonly Uint8Array[],
  which: (n: number) => boolean,
): Promise<void> {
  for (const [n, bytes] of spans.entries()) if (which(n)) await content.keep(n, bytes, n * LENGTH);
}

/** Every span that is said to be present must read as the bytes that it is. */
function expectNoWrongByte(content: LayerContent, spans: readonly Uint8Array[]): void {
  for (const [n, bytes] of spans.entries()) {
    if (!content.has(n)) continue;
    const into = new Uint8Array(LENGTH);
    expect(content.readNow(into, n * LENGTH)).toBe(true);
    expect(Buffer.compare(into, bytes)).toBe(0);
  }
}

describe('the layout key', () => {
  test('is the same for the same spans of the same layer', () => {
    expect(makeLayout(5).layout.key).toBe(makeLayout(5).layout.key);
  });

  test.each([
    ['another digest', makeLayout(5, `sha256:${'b'.repeat(64)}`)],
    ['another count', makeLayout(6)],
    ['other content', makeLayout(5, undefined, 1)],
  ])('differs for %s', (_, other) => {
    expect(other.layout.key).not.toBe(makeLayout(5).layout.key);
  });
});

describe('a layer file', () => {
  test('keeps presence over a restart', async () => {
    const place = directory();
    const { layout, spans } = makeLayout(40);
    const first = await store(place);
    await keepAll(first.layer(layout), spans, (n) => n % 3 === 0);
    await first.close();
    const again = (await store(place)).layer(layout);
    expect(again.presence.count()).toBe(14);
    expectNoWrongByte(again, spans);
  });

  test('an index that lies about a layer neither fills nor reads the honest one', async () => {
    const place = await store();
    const honest = makeLayout(5);
    const lying = makeLayout(5, honest.layout.digest, 100);
    await keepAll(place.layer(lying.layout), lying.spans, () => true);
    expect(place.layer(honest.layout).presence.count()).toBe(0);
  });

  test('bytes are on disk before their tag is', async () => {
    const place = directory();
    const { layout, spans } = makeLayout(3);
    const opened = await store(place);
    const content = opened.layer(layout);
    await content.keep(1, spans[1] ?? new Uint8Array(), LENGTH);
    const file = path.join(place, 'layers', layerFileName(layout));
    const tags = () => {
      const { tagsOffset } = layerFileShape(layout.spanCount, layout.uncompressedSize);
      return fs.readFileSync(file).subarray(tagsOffset, tagsOffset + 24);
    };
    expect(content.has(1)).toBe(true);
    expect(tags().every((byte) => byte === 0)).toBe(true);
    await content.flush();
    expect(tags().subarray(8, 16)).toEqual(Buffer.from(layout.tags.subarray(8, 16)));
  });

  test('what could not be synced is present no longer', async () => {
    const { layout, spans } = makeLayout(3);
    const failures: unknown[] = [];
    const place = directory();
    const file = path.join(place, 'layer');
    const { fd } = openLayerFile(file, layout, () => path.join(place, 'new'));
    const content = new Layer(
      layout,
      { fd, writable: true },
      {
        clock: new ManualClock(),
        reserve: () => Promise.resolve(true),
        openAgain: () => undefined,
        makeRoomAfter: () => false,
        keepingFailed: (error) => void failures.push(error),
        incomingPath: () => '',
      },
    );
    await content.keep(0, spans[0] ?? new Uint8Array(), 0);
    await content.flush();
    await content.keep(1, spans[1] ?? new Uint8Array(), LENGTH);
    fs.closeSync(fd);
    await content.flush();
    expect(failures).toMatchObject([{ code: 'EBADF' }]);
    expect([0, 1, 2].map((n) => content.has(n))).toEqual([true, false, false]);
  });

  test('no change to its tags, header or size makes a span present that is not', async () => {
    const { layout, spans } = makeLayout(30);
    const { tagsOffset, size } = layerFileShape(layout.spanCount, layout.uncompressedSize);
    const mutation = fc.oneof(
      fc.record({
        kind: fc.constant('write' as const),
        at: fc.integer({ min: tagsOffset, max: size - 1 }),
        bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }),
      }),
      fc.record({
        kind: fc.constant('cut' as const),
        at: fc.nat(size),
        bytes: fc.constant(new Uint8Array()),
      }),
      fc.record({
        kind: fc.constant('copy' as const),
        at: fc.nat(29),
        bytes: fc.uint8Array({ minLength: 1, maxLength: 1 }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 5 }), async (mutations) => {
        const place = directory();
        const first = await store(place);
        await keepAll(first.layer(layout), spans, (n) => n % 2 === 0);
        await first.close();
        const file = path.join(place, 'layers', layerFileName(layout));
        const fd = fs.openSync(file, 'r+');
        for (const { kind, at, bytes } of mutations) {
          if (kind === 'cut') fs.ftruncateSync(fd, at);
          else if (kind === 'write') fs.writeSync(fd, bytes, 0, bytes.length, at);
          else {
            // One span's tag in another's place.
            const tag = new Uint8Array(8);
            fs.readSync(fd, tag, 0, 8, tagsOffset + at * 8);
            fs.writeSync(fd, tag, 0, 8, tagsOffset + ((bytes[0] ?? 0) % 30) * 8);
          }
        }
        fs.closeSync(fd);
        const again = await store(place);
        const content = again.layer(layout);
        expectNoWrongByte(content, spans);
        await keepAll(content, spans, () => true);
        expect(content.presence.count()).toBe(30);
        expectNoWrongByte(content, spans);
        await again.close();
      }),
      { numRuns: 60 },
    );
  });

  test('another layer under its name is replaced', async () => {
    const place = directory();
    const [one, two] = [makeLayout(5), makeLayout(5, undefined, 50)];
    const first = await store(place);
    await keepAll(first.layer(two.layout), two.spans, () => true);
    await first.close();
    const layers = path.join(place, 'layers');
    fs.renameSync(path.join(layers, layerFileName(two.layout)), path.join(layers, layerFileName(one.layout)));
    const content = (await store(place)).layer(one.layout);
    expect(content.presence.count()).toBe(0);
  });

  test('a layer of nothing needs no file', async () => {
    const { layout } = makeLayout(0);
    const content = (await store()).layer(layout);
    expect(content.fd).toBe(-1);
  });
});
