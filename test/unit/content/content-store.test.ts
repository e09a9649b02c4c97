import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import type { LayerLayout } from '../../../src/content/index.ts';
import { layoutOfSpans } from '../../../src/content/layer-layout.ts';
import { processIdentity } from '../../../src/content/process-identity.ts';
import { ManualClock } from './support/clock.ts';
import { noise } from './support/image.ts';
import { scratch } from './support/scratch.ts';

const { store, directory } = scratch();
const LENGTH = 64 * 1024;

interface Made {
  readonly layout: LayerLayout;
  readonly spans: readonly Uint8Array[];
}

function made(seed: number, count = 4): Made {
  const spans = Array.from({ length: count }, (_, n) => noise(LENGTH, seed * 1000 + n));
  const layout = layoutOfSpans(`sha256:${String(seed).padStart(64, '0')}`, count, (n) => ({
    uncompressedOffset: n * LENGTH,
    uncompressedLength: LENGTH,
    sha256: new Bun.CryptoHasher('sha256').update(spans[n] ?? new Uint8Array()).digest(),
  }));
  return { layout, spans };
}

type Opened = Awaited<ReturnType<typeof store>>;

async function fill(into: Opened, { layout, spans }: Made): Promise<number> {
  const content = into.layer(layout);
  for (const [n, bytes] of spans.entries()) await content.keep(n, bytes, n * LENGTH);
  const count = content.presence.count();
  await into.release(content);
  return count;
}

function age(place: string, one: Made, seconds: number): void {
  const name =
    fs.readdirSync(path.join(place, 'layers')).find((entry) => entry.endsWith(one.layout.key)) ?? '';
  const time = Date.now() / 1000 - seconds;
  fs.utimesSync(path.join(place, 'layers', name), time, time);
}

describe('the limit', () => {
  test('the longest unused layer makes room for a new one', async () => {
    const place = directory();
    const opened = await store(place, { limitBytes: 11 * LENGTH });
    const [old, recent, fresh] = [made(1), made(2), made(3)];
    await fill(opened, old);
    await fill(opened, recent);
    age(place, old, 200);
    age(place, recent, 100);
    expect(await fill(opened, fresh)).toBe(4);
    const kept = opened.list().map((entry) => entry.key);
    expect(kept).toContain(recent.layout.key);
    expect(kept).toContain(fresh.layout.key);
    expect(kept).not.toContain(old.layout.key);
  });

  test('what cannot be deleted is passed over, and stops nobody who wants to keep something', async () => {
    const place = directory();
    const opened = await store(place, { limitBytes: 11 * LENGTH });
    const [old, recent, fresh] = [made(1), made(2), made(3)];
    // Deleting a directory as a file fails, as deleting anything does on a file system that has become read-only.
    const stuck = path.join(place, 'layers', 'stuck');
    fs.mkdirSync(stuck);
    fs.utimesSync(stuck, 0, 0);
    await fill(opened, old);
    await fill(opened, recent);
    age(place, old, 200);
    age(place, recent, 100);
    expect(await fill(opened, fresh)).toBe(4);
    const kept = fs.readdirSync(path.join(place, 'layers')).join();
    expect(kept).toContain('stuck');
    expect(kept).not.toContain(old.layout.key);
  });

  test('a layer in use is never evicted, here or by another process', async () => {
    const place = directory();
    const holder = await store(place);
    const held = made(1);
    await fill(holder, held);
    const content = holder.layer(held.layout);
    age(place, held, 1000);
    const other = await store(place, { limitBytes: 7 * LENGTH });
    expect(await fill(other, made(2))).toBeLessThan(4);
    expect(other.list().find((entry) => entry.key === held.layout.key)?.live).toBe(true);
    const into = new Uint8Array(LENGTH);
    expect(content.readNow(into, 0)).toBe(true);
    expect(other.prune().entries).toBe(1);
    expect(other.list()).toHaveLength(1);
  });

  test('it keeps again once there is room', async () => {
    const place = directory();
    const clock = new ManualClock();
    const opened = await store(place, { limitBytes: 6 * LENGTH, clock });
    const content = opened.layer(made(1).layout);
    for (const [n, bytes] of made(1).spans.entries()) await content.keep(n, bytes, n * LENGTH);
    expect(await fill(opened, made(2))).toBeLessThan(4);
    await opened.release(content);
    expect(await fill(opened, made(3))).toBe(4);
  });

  test('it is looked for again after a while', async () => {
    const place = directory();
    const clock = new ManualClock();
    const other = await store(place);
    const held = other.layer(made(1).layout);
    for (const [n, bytes] of made(1).spans.entries()) await held.keep(n, bytes, n * LENGTH);
    const opened = await store(place, { limitBytes: 6 * LENGTH, clock });
    expect(await fill(opened, made(2))).toBeLessThan(4);
    await other.release(held);
    await clock.advance(60_000);
    expect(await fill(opened, made(3))).toBe(4);
  });

  test('said once, however often', async () => {
    const lines: string[] = [];
    const log = (message: string) => void lines.push(message);
    const logger = { debug: () => {}, info: () => {}, warn: log, error: log, with: () => logger };
    const opened = await store(undefined, { limitBytes: LENGTH, logger });
    await fill(opened, made(1));
    await fill(opened, made(2));
    expect(lines).toEqual(['content is served without being kept']);
  });
});

describe('leases', () => {
  test('those of a process that died are forgotten', async () => {
    const place = directory();
    const child = Bun.spawnSync(['sh', '-c', 'echo $$']);
    const dead = `${child.stdout.toString().trim()}-1-00000000`;
    const opened = await store(place);
    await fill(opened, made(1));
    const [entry] = opened.list();
    fs.writeFileSync(
      path.join(place, 'live', `${entry?.digest.replace(':', '-')}.${entry?.key}~${dead}`),
      '',
    );
    expect(opened.list()[0]?.live).toBe(false);
    expect(fs.readdirSync(path.join(place, 'live'))).toEqual([]);
  });

  test('the last one to release ends the lease', async () => {
    const opened = await store();
    const { layout } = made(1);
    const [one, two] = [opened.layer(layout), opened.layer(layout)];
    expect(one).toBe(two);
    await opened.release(one);
    expect(opened.list()[0]?.live).toBe(true);
    await opened.release(two);
    expect(opened.list()[0]?.live).toBe(false);
  });

  test('a layer that is opened while it is being closed stays leased', async () => {
    const opened = await store();
    const { layout, spans } = made(1);
    const one = opened.layer(layout);
    await one.keep(0, spans[0] ?? new Uint8Array(), 0);
    const closing = opened.release(one);
    const two = opened.layer(layout);
    await closing;
    expect(opened.list()[0]?.live).toBe(true);
    expect(two.refresh(0)).toBe(true);
  });
});

describe('the directory', () => {
  test('files of dead processes are swept from incoming, those of living ones stay', async () => {
    const place = directory();
    await (await store(place)).close();
    fs.writeFileSync(path.join(place, 'incoming', 'x~1-1-00000000'), '');
    fs.writeFileSync(path.join(place, 'incoming', `y~${processIdentity()}`), '');
    await store(place);
    expect(fs.readdirSync(path.join(place, 'incoming'))).toEqual([`y~${processIdentity()}`]);
  });

  test('stat, list and prune tell the same story', async () => {
    const place = directory();
    const opened = await store(place, { limitBytes: 100 * LENGTH });
    await fill(opened, made(1));
    await fill(opened, made(2));
    age(place, made(1), 7200);
    const stat = opened.stat();
    expect(stat).toMatchObject({
      layers: 2,
      files: 0,
      liveBytes: 0,
      limitBytes: 100 * LENGTH,
      notKeeping: undefined,
    });
    expect(stat.bytes).toBe(opened.list().reduce((sum, entry) => sum + entry.bytes, 0));
    expect(stat.bytes).toBeGreaterThanOrEqual(8 * LENGTH);
    expect(opened.list().map((entry) => entry.fullBytes)).toEqual([4 * LENGTH, 4 * LENGTH]);
    expect(opened.prune({ unusedForMs: 3_600_000 }).entries).toBe(1);
    expect(opened.prune({ toBytes: 100 * LENGTH }).entries).toBe(0);
    expect(opened.prune().entries).toBe(1);
    expect(opened.stat().bytes).toBe(0);
  });

  test('two stores that write the same layer at once lose nothing', async () => {
    const place = directory();
    const [one, two] = [await store(place), await store(place)];
    const { layout, spans } = made(1, 40);
    const [first, second] = [one.layer(layout), two.layer(layout)];
    await Promise.all(spans.map((bytes, n) => (n % 2 === 0 ? first : second).keep(n, bytes, n * LENGTH)));
    await one.close();
    await two.close();
    const third = (await store(place)).layer(layout);
    expect(third.presence.count()).toBe(40);
  });

  test('a file deleted under a live layer stays readable, and the next store begins anew', async () => {
    const place = directory();
    const opened = await store(place);
    const { layout, spans } = made(1);
    const content = opened.layer(layout);
    await content.keep(0, spans[0] ?? new Uint8Array(), 0);
    for (const name of fs.readdirSync(path.join(place, 'layers')))
      fs.unlinkSync(path.join(place, 'layers', name));
    const other = (await store(place)).layer(layout);
    expect(other.presence.count()).toBe(0);
    await content.keep(1, spans[1] ?? new Uint8Array(), LENGTH);
    const into = new Uint8Array(LENGTH);
    expect(content.readNow(into, LENGTH)).toBe(true);
    expect(Buffer.compare(into, spans[1] ?? new Uint8Array())).toBe(0);
    expect(other.refresh(1)).toBe(false);
  });
});
