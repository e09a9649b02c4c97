import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import type { Logger } from '../../../src/observability/index.ts';
import { ManualClock } from '../../unit/content/support/clock.ts';
import { buildImage, noise, SPAN } from '../../unit/content/support/image.ts';
import { readAll, scratch } from '../../unit/content/support/scratch.ts';
import { MemorySource } from '../../unit/content/support/source.ts';
import { makeTestImage, run } from './world.ts';

const { directory, store, content, cleanup } = scratch();
const image = await makeTestImage();
const one = image.files.get('one');
if (one === undefined) throw new Error('the image has no file');

function smallDisk(bytes: number): string {
  const place = directory();
  run('mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'imgcred-test', place);
  cleanup(() => run('umount', '-l', place));
  return place;
}

function countingLogger(warnings: string[]): Logger {
  const logger: Logger = {
    debug: () => {},
    info: () => {},
    warn: (message, fields) => void warnings.push(`${message}: ${String(fields?.reason)}`),
    error: () => {},
    with: () => logger,
  };
  return logger;
}

describe('a disk that is full', () => {
  test('content is served without being kept, said once; and kept again when there is room', async () => {
    const place = smallDisk(6 * SPAN);
    const clock = new ManualClock();
    const warnings: string[] = [];
    const opened = await store(path.join(place, 'cache'), { clock, logger: countingLogger(warnings) });
    const source = new MemorySource(image.layers);
    const reader = content(image.index, opened, source, { clock });
    expect(await readAll(reader, one.ino, one.bytes.length, 4096)).toEqual(one.bytes);
    // Bytes are handed out before they are kept, or not.
    while (opened.notKeeping === undefined) await Bun.sleep(1);
    expect(warnings).toEqual(['content is served without being kept: the disk is full']);
    expect(opened.notKeeping).toBe('the disk is full');
    // Pieces of a span that can't be kept come from memory: a span costs one transfer, not one a piece.
    const { spansFetched, spansNotKept } = reader.stats();
    expect(spansFetched).toBeLessThanOrEqual(image.index.spanCount(0) + 1);
    expect(spansNotKept).toBeGreaterThan(0);

    run('mount', '-o', `remount,size=${100 * SPAN}`, place);
    await clock.advance(31_000);
    expect(opened.notKeeping).toBeUndefined();
    expect(await reader.completeAll()).toMatchObject({ missing: 0, stopped: undefined });
    expect((await reader.localState()).local).toBe(true);
  });

  test('a layer whose file could not be made at first is kept once there is room', async () => {
    const place = smallDisk(4096);
    const clock = new ManualClock();
    const opened = await store(path.join(place, 'cache'), { clock });
    const reader = content(image.index, opened, new MemorySource(image.layers), { clock });
    await reader.read(one.ino, 0, new Uint8Array(10));
    while (opened.notKeeping === undefined) await Bun.sleep(1);
    expect(opened.notKeeping).toBe('the disk is full');
    run('mount', '-o', `remount,size=${100 * SPAN}`, place);
    await clock.advance(31_000);
    expect(await reader.completeAll()).toMatchObject({ missing: 0, stopped: undefined });
    expect((await reader.localState()).local).toBe(true);
  });

  test('idle content gives way to content in use', async () => {
    const place = smallDisk(30 * SPAN);
    const opened = await store(path.join(place, 'cache'));
    const idle = content(image.index, opened, new MemorySource(image.layers));
    await idle.read(one.ino, 0, new Uint8Array(20 * SPAN));
    await idle.close();
    const other = await buildImage([[{ name: 'other', bytes: noise(20 * SPAN, 9) }]]);
    const file = other.files.get('other') ?? one;
    const reader = content(other.index, opened, new MemorySource(other.layers));
    expect(await readAll(reader, file.ino, file.bytes.length)).toEqual(file.bytes);
    expect(opened.notKeeping).toBeUndefined();
  });
});

describe('a disk that is read-only', () => {
  test('serves what it has from disk and the rest without keeping', async () => {
    const place = smallDisk(200 * SPAN);
    const first = await store(path.join(place, 'cache'));
    const writer = content(image.index, first, new MemorySource(image.layers), { readAheadBytes: 0 });
    await writer.read(one.ino, 0, new Uint8Array(3 * SPAN));
    await writer.close();
    await first.close();
    run('mount', '-o', 'remount,ro', place);
    const warnings: string[] = [];
    const opened = await store(path.join(place, 'cache'), { logger: countingLogger(warnings) });
    expect(warnings).toEqual([
      'the content cache cannot be written: content is served without being kept: EROFS',
    ]);
    const source = new MemorySource(image.layers);
    const reader = content(image.index, opened, source);
    expect(reader.readNow(one.ino, 0, new Uint8Array(3 * SPAN))).toBe(3 * SPAN);
    expect(await readAll(reader, one.ino, one.bytes.length)).toEqual(one.bytes);
    expect(warnings).toHaveLength(1);
  });

  test('what became so while the store was open is as good', async () => {
    const place = smallDisk(200 * SPAN);
    const warnings: string[] = [];
    const opened = await store(path.join(place, 'cache'), { logger: countingLogger(warnings) });
    const before = content(image.index, opened, new MemorySource(image.layers), { readAheadBytes: 0 });
    await before.read(one.ino, 0, new Uint8Array(3 * SPAN));
    await before.close();
    // As a mount server that was killed leaves it.
    fs.writeFileSync(path.join(place, 'cache', 'live', 'layer~1-1-gone'), '');
    run('mount', '-o', 'remount,ro', place);
    const reader = content(image.index, opened, new MemorySource(image.layers));
    expect(reader.readNow(one.ino, 0, new Uint8Array(3 * SPAN))).toBe(3 * SPAN);
    expect(await readAll(reader, one.ino, one.bytes.length)).toEqual(one.bytes);
    expect(opened.list()).toHaveLength(2);
    await reader.close();
    await opened.close();
    expect(warnings).toHaveLength(1);
  });

  test('damaged bytes on it are not served once they are known to be', async () => {
    const place = smallDisk(200 * SPAN);
    const first = await store(path.join(place, 'cache'));
    const writer = content(image.index, first, new MemorySource(image.layers));
    await writer.completeAll();
    await writer.close();
    await first.close();
    const layers = path.join(place, 'cache', 'layers');
    const name = fs
      .readdirSync(layers)
      .find((entry) => entry.includes(image.layers[0]?.source.digest.slice(7) ?? ''));
    const fd = fs.openSync(path.join(layers, name ?? ''), 'r+');
    const at = image.index.extents(one.ino)[0]?.layerOffset ?? 0;
    fs.writeSync(fd, 'damage', at + 9 * SPAN);
    fs.closeSync(fd);
    run('mount', '-o', 'remount,ro', place);
    const opened = await store(path.join(place, 'cache'));
    const reader = content(image.index, opened, new MemorySource(image.layers));
    expect(await reader.verifyFile(one.ino)).toBe('damaged');
    expect(await readAll(reader, one.ino, one.bytes.length)).toEqual(one.bytes);
  });

  test('however many images are read, what is held in memory has one bound', async () => {
    const place = smallDisk(SPAN);
    run('mount', '-o', 'remount,ro', place);
    const limit = 4 * SPAN;
    const opened = await store(path.join(place, 'cache'), { recentBytes: limit });
    for (let seed = 20; seed < 24; seed += 1) {
      const other = await buildImage([[{ name: 'other', bytes: noise(6 * SPAN, seed) }]]);
      const file = other.files.get('other') ?? one;
      const reader = content(other.index, opened, new MemorySource(other.layers));
      expect(await readAll(reader, file.ino, file.bytes.length)).toEqual(file.bytes);
      expect(opened.recent.bytes).toBeLessThanOrEqual(limit);
    }
    expect(opened.recent.bytes).toBeGreaterThan(2 * SPAN);
  });

  test('an empty directory that cannot be made is no obstacle', async () => {
    const place = smallDisk(SPAN);
    run('mount', '-o', 'remount,ro', place);
    const opened = await store(path.join(place, 'cache'));
    const reader = content(image.index, opened, new MemorySource(image.layers));
    expect(await readAll(reader, one.ino, one.bytes.length)).toEqual(one.bytes);
    expect(opened.list()).toEqual([]);
    expect(opened.readOnly).toBe(true);
  });
});
