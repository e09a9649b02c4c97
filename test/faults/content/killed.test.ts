import { describe, expect, test } from 'bun:test';
import path from 'node:path';
import { scratch } from '../../unit/content/support/scratch.ts';
import { MemorySource } from '../../unit/content/support/source.ts';
import { makeTestImage } from './world.ts';

const { directory, store, content } = scratch();
const image = await makeTestImage();
const script = path.join(import.meta.dir, 'reading-process.ts');

function start(place: string, limit: number, seed: number, reads: number) {
  return Bun.spawn([process.execPath, script, place, String(limit), String(seed), String(reads)], {
    stdout: 'pipe',
    stderr: 'inherit',
  });
}

/** Kills the process with SIGKILL once it has printed `lines` lines. Answers all that it printed. */
async function killAfter(child: ReturnType<typeof start>, lines: number): Promise<string> {
  let text = '';
  for await (const chunk of child.stdout) {
    text += new TextDecoder().decode(chunk);
    if (text.split('\n').length > lines) child.kill('SIGKILL');
  }
  await child.exited;
  return text;
}

describe('a process killed in the middle of fetching', () => {
  test('leaves a store from which no wrong byte is ever served', async () => {
    const place = directory();
    let local = 0;
    for (const [round, lines] of [1, 3, 8, 15, 2, 25].entries()) {
      const output = await killAfter(start(place, 0, round + 1, 0), lines);
      expect(output).not.toContain('wrong');
      const opened = await store(place);
      const reader = content(image.index, opened, new MemorySource(image.layers));
      for (const { ino, bytes } of image.files.values()) {
        for (let at = 0; at < bytes.length; at += 4096) {
          const into = new Uint8Array(Math.min(4096, bytes.length - at));
          if (reader.readNow(ino, at, into) < 0) continue;
          local += 1;
          expect(Buffer.compare(into, bytes.subarray(at, at + into.length))).toBe(0);
        }
      }
      expect(opened.list().filter((entry) => entry.kind === 'incoming')).toEqual([]);
      await reader.close();
      await opened.close();
    }
    expect(local).toBeGreaterThan(0);
  }, 120_000);
});

describe('two processes on one store, one of which is killed again and again', () => {
  test('the other reads the right bytes, and what is left is right', async () => {
    const place = directory();
    const steady = start(place, 20 * 64 * 1024, 7, 400);
    const output = new Response(steady.stdout).text();
    let running = true;
    void steady.exited.then(() => {
      running = false;
    });
    let kills = 0;
    for (let seed = 1; running || kills < 3; seed += 1, kills += 1)
      expect(await killAfter(start(place, 12 * 64 * 1024, seed, 0), 4 + (seed % 9))).not.toContain('wrong');
    expect(await steady.exited).toBe(0);
    expect(await output).not.toContain('wrong');
    const opened = await store(place);
    // Nobody lives who holds anything, and nothing half done is left.
    expect(opened.list().filter(({ live, kind }) => live || kind === 'incoming')).toEqual([]);
    const reader = content(image.index, opened, new MemorySource(image.layers));
    expect(await reader.verifyFiles()).toBe(0);
  }, 120_000);
});

describe('two processes on one store', () => {
  test('read, keep and evict at the same time, and both get the right bytes', async () => {
    const place = directory();
    const children = [start(place, 15 * 64 * 1024, 1, 150), start(place, 25 * 64 * 1024, 2, 150)];
    const outputs = await Promise.all(children.map((child) => new Response(child.stdout).text()));
    expect(await Promise.all(children.map((child) => child.exited))).toEqual([0, 0]);
    for (const output of outputs) expect(output).not.toContain('wrong');
    const opened = await store(place);
    const reader = content(image.index, opened, new MemorySource(image.layers));
    await reader.completeAll();
    for (const { ino } of image.files.values()) expect(await reader.verifyFile(ino)).toBe('good');
  }, 120_000);
});
