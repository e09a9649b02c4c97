import { afterEach, beforeEach, expect, test } from 'bun:test';
import { appendFile, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { LogStore } from '../../../src/logs/index.ts';
import type { LogChunk, NumberedLogChunk } from '../../../src/protocol/index.ts';
import { temporaryDirectory } from '../database/world.ts';

const ID = 'ctr_1';
let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => directory[Symbol.dispose]());

const chunk = (text: string, time = 1, stream: LogChunk['stream'] = 'stdout'): LogChunk => ({
  time,
  stream,
  data: Buffer.from(text).toString('base64'),
});

const numbered = (first: number, chunks: readonly LogChunk[]): NumberedLogChunk[] =>
  chunks.map((each, at) => ({ ...each, number: first + at }));

async function textOf(chunks: AsyncIterable<LogChunk>): Promise<string> {
  let text = '';
  for await (const { data } of chunks) text += Buffer.from(data, 'base64').toString();
  return text;
}

const file = () => join(directory.path, `${ID}.log`);

test('what was appended is read back in order, byte for byte', async () => {
  const store = new LogStore(directory.path);
  const bytes = Buffer.from([0, 10, 13, 255, 128, 10]).toString('base64');
  await store.append(ID, numbered(0, [chunk('a\n'), { time: 2, stream: 'stderr', data: bytes }]));
  const read = await Array.fromAsync(store.read(ID));
  expect(read).toEqual([chunk('a\n'), { time: 2, stream: 'stderr', data: bytes }]);
});

test('a container that wrote nothing has no output', async () => {
  expect(await Array.fromAsync(new LogStore(directory.path).read('ctr_none'))).toEqual([]);
});

test('chunks that are sent again are taken once', async () => {
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('0'), chunk('1')]));
  await store.append(ID, numbered(0, [chunk('0'), chunk('1')]));
  await store.append(ID, numbered(1, [chunk('1'), chunk('2')]));
  await store.append(ID, numbered(0, [chunk('0')]));
  expect(await textOf(store.read(ID))).toBe('012');
});

test('a store that is opened anew knows what was taken before', async () => {
  await new LogStore(directory.path).append(ID, numbered(0, [chunk('0'), chunk('1')]));
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('0'), chunk('1'), chunk('2')]));
  expect(await textOf(store.read(ID))).toBe('012');
});

test('appends that overlap in time are written one after the other', async () => {
  const store = new LogStore(directory.path);
  await Promise.all(Array.from({ length: 20 }, (_, at) => store.append(ID, numbered(at, [chunk(`${at},`)]))));
  expect(await textOf(store.read(ID))).toBe(Array.from({ length: 20 }, (_, at) => `${at},`).join(''));
});

const tornLines = [
  ['after whole lines', true],
  ['as the only line of a file', false],
] as const;
for (const [where, whole] of tornLines) {
  test(`a line cut by a crash ${where} costs no later chunk`, async () => {
    if (whole) await new LogStore(directory.path).append(ID, numbered(0, [chunk('kept\n')]));
    await appendFile(file(), '{"n":1,"time":1,"stre');
    const store = new LogStore(directory.path);
    const next = whole ? 1 : 0;
    await store.append(ID, numbered(next, [chunk('again\n'), chunk('more\n')]));
    expect(await textOf(store.read(ID))).toBe(whole ? 'kept\nagain\nmore\n' : 'again\nmore\n');
  });
}

test('a line cut by a crash in a file begun by rotation costs no later chunk', async () => {
  await new LogStore(directory.path, 1).append(ID, numbered(0, [chunk('older\n')]));
  await writeFile(file(), '{"n":1,"ti');
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(1, [chunk('again\n')]));
  expect(await textOf(store.read(ID))).toBe('older\nagain\n');
});

test('a chunk longer than the part that is read at the end is still counted', async () => {
  const long = chunk('x'.repeat(600_000));
  await new LogStore(directory.path).append(ID, numbered(0, [chunk('a'), long]));
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(1, [long, chunk('b')]));
  expect((await textOf(store.read(ID))).length).toBe(600_002);
});

test('a full file becomes the older of two, and what went before is dropped', async () => {
  const store = new LogStore(directory.path, 400);
  for (let at = 0; at < 40; at++) await store.append(ID, numbered(at, [chunk(`line ${at}\n`)]));
  const names = (await readdir(directory.path)).sort();
  expect(names).toEqual([`${ID}.log`, `${ID}.log.1`]);
  for (const name of names) expect((await stat(join(directory.path, name))).size).toBeLessThan(600);
  const lines = (await textOf(store.read(ID))).trimEnd().split('\n');
  expect(lines.at(-1)).toBe('line 39');
  expect(lines).toEqual(lines.map((_, at) => `line ${40 - lines.length + at}`));
});

test('a rotation while a reader reads costs it nothing', async () => {
  const store = new LogStore(directory.path, 200);
  await store.append(ID, numbered(0, [chunk('0\n')]));
  const reader = store.read(ID);
  const first = await reader.next();
  await store.append(ID, numbered(1, [chunk(`1${'.'.repeat(200)}\n`)]));
  await store.append(ID, numbered(2, [chunk('2\n')]));
  const rest = await textOf(reader);
  expect(Buffer.from(first.value?.data ?? '', 'base64').toString() + rest).toBe(`0\n1${'.'.repeat(200)}\n`);
});

test('files are for their owner only', async () => {
  await new LogStore(directory.path).append(ID, numbered(0, [chunk('a')]));
  expect((await stat(file())).mode & 0o777).toBe(0o600);
});

test('a reader that follows sees what comes, and ends when it is told to', async () => {
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('0\n')]));
  let passes = 0;
  const after = async () => {
    passes++;
    if (passes > 3) return false;
    await store.append(ID, numbered(passes, [chunk(`${passes}\n`)]));
    return true;
  };
  expect(await textOf(store.read(ID, { after }))).toBe('0\n1\n2\n3\n');
});

test('a reader that follows a long file does not read it from the start again', async () => {
  const store = new LogStore(directory.path);
  const many = Array.from({ length: 8000 }, (_, at) => chunk(`${String(at).padStart(30)}\n`));
  await store.append(ID, numbered(0, many));
  let passes = 0;
  const after = async () => {
    if (passes++ > 0) return false;
    await store.append(ID, numbered(many.length, [chunk('last\n')]));
    return true;
  };
  const seen = await Array.fromAsync(store.read(ID, { after }));
  expect(seen.length).toBe(many.length + 1);
  expect(seen.at(-1)).toEqual(chunk('last\n'));
});

test('a follower that asked for a tail goes on after it', async () => {
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('a\nb\n')]));
  let passes = 0;
  const after = async () => {
    if (passes++ > 0) return false;
    await store.append(ID, numbered(1, [chunk('c\n')]));
    return true;
  };
  expect(await textOf(store.read(ID, { tail: 1, after }))).toBe('b\nc\n');
});

test('since leaves out what is older', async () => {
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('a', 10), chunk('b', 20), chunk('c', 30)]));
  expect(await textOf(store.read(ID, { since: 20 }))).toBe('bc');
});

test('a tail of one stream counts that stream’s lines only', async () => {
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('e1\n', 1, 'stderr'), chunk('o1\n'), chunk('o2\n')]));
  expect(await textOf(store.read(ID, { tail: 1, stream: 'stderr' }))).toBe('e1\n');
});

test('output that was removed is gone, and its numbers begin again', async () => {
  const store = new LogStore(directory.path, 1);
  await store.append(ID, numbered(0, [chunk('a')]));
  await store.append(ID, numbered(1, [chunk('b')]));
  await store.remove(ID);
  expect(await readdir(directory.path)).toEqual([]);
  await store.append(ID, numbered(0, [chunk('c')]));
  expect(await textOf(store.read(ID))).toBe('c');
});

test('one container’s output is not another’s', async () => {
  const store = new LogStore(directory.path);
  await store.append('ctr_a', numbered(0, [chunk('a')]));
  await store.append('ctr_b', numbered(0, [chunk('b')]));
  expect(await textOf(store.read('ctr_a'))).toBe('a');
});

/** The last `count` lines of a text, the plain way. */
function naiveTail(text: string, count: number): string {
  const lines = text.split(/(?<=\n)/);
  return count === 0 ? '' : lines.slice(-count).join('');
}

test('property: a tail of N lines is what a split of the whole text gives', async () => {
  const pieces = fc.array(fc.stringMatching(/^[ab\n]{0,6}$/), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(pieces, fc.nat({ max: 8 }), async (texts, count) => {
      using place = temporaryDirectory();
      const store = new LogStore(place.path);
      await store.append(
        ID,
        numbered(
          0,
          texts.map((text) => chunk(text)),
        ),
      );
      expect(await textOf(store.read(ID, { tail: count }))).toBe(naiveTail(texts.join(''), count));
    }),
    { numRuns: 150 },
  );
});

test('property: however appends are cut and repeated, each chunk is kept once', async () => {
  const sends = fc.array(fc.record({ from: fc.nat({ max: 20 }), length: fc.nat({ max: 6 }) }), {
    maxLength: 15,
  });
  await fc.assert(
    fc.asyncProperty(sends, fc.integer({ min: 60, max: 100_000 }), async (list, fileBytes) => {
      using place = temporaryDirectory();
      let store = new LogStore(place.path, fileBytes);
      let next = 0;
      for (const [at, { from, length }] of list.entries()) {
        // A sender never leaves out what it got no answer for.
        const sequence = Math.min(from, next);
        await store.append(
          ID,
          numbered(
            sequence,
            Array.from({ length }, (_, i) => chunk(`${sequence + i},`)),
          ),
        );
        next = Math.max(next, sequence + length);
        if (at % 4 === 3) store = new LogStore(place.path, fileBytes);
      }
      const seen = (await textOf(store.read(ID))).split(',').slice(0, -1).map(Number);
      const first = seen[0] ?? 0;
      expect(seen).toEqual(seen.map((_, i) => first + i));
      if (seen.length > 0) expect(seen.at(-1)).toBe(next - 1);
      if (fileBytes > 50_000) expect(seen.length).toBe(next);
    }),
    { numRuns: 80 },
  );
});

test('a reader that stops early leaves no file open', async () => {
  const store = new LogStore(directory.path);
  await store.append(ID, numbered(0, [chunk('a'), chunk('b')]));
  const open = async () => (await readdir('/proc/self/fd')).length;
  const before = await open();
  for (let i = 0; i < 20; i++) {
    for await (const _ of store.read(ID)) break;
  }
  expect(await open()).toBe(before);
  expect(await readFile(file(), 'utf8')).toContain('"n":0');
});
