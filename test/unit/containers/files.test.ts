import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { parseOomKills } from '../../../src/worker/containers/cgroup.ts';
import { parseOwnGroup } from '../../../src/worker/containers/cgroup-moves.ts';
import { containerPaths } from '../../../src/worker/containers/container-files.ts';
import { type LogRecord, LogWriter, segmentName } from '../../../src/worker/containers/container-log.ts';
import {
  encodeFrame,
  encodeMessage,
  FRAME_KINDS,
  FrameDecoder,
} from '../../../src/worker/containers/control-protocol.ts';
import { overlayOptions } from '../../../src/worker/containers/overlay.ts';
import { lastLines, readLogs, type StoredLogRecord } from '../../../src/worker/containers/read-logs.ts';
import { makeDirectoryInRootfs, resolveInRootfs } from '../../../src/worker/containers/rootfs-path.ts';
import { startFailure } from '../../../src/worker/containers/runtime-failure.ts';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-container-files-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (records: readonly LogRecord[]) =>
  records.map((record) => Buffer.from(record.bytes).toString()).join('');

describe('a log', () => {
  const all = async (name: string) => {
    const records: StoredLogRecord[] = [];
    for await (const record of readLogs(containerPaths(join(directory, name)), {}, () => true))
      records.push(record);
    return records;
  };

  test('gives back what was written, with stream and time', async () => {
    let time = 1_700_000_000_000.5;
    using log = new LogWriter(join(directory, 'a/logs'), { maxBytes: 1000, maxFiles: 3 }, () => time++);
    log.write('stdout', bytes('one'));
    log.write('stderr', bytes('two'));
    const records = await all('a');
    expect(records.map(({ position }) => position)).toEqual(
      [...records.map(({ position }) => position)].sort((a, b) => a - b),
    );
    expect(records.map(({ position: _, ...record }) => record)).toEqual([
      { time: 1_700_000_000_000.5, stream: 'stdout', bytes: bytes('one') },
      { time: 1_700_000_000_001.5, stream: 'stderr', bytes: bytes('two') },
    ]);
  });

  test('keeps its newest segments', async () => {
    using log = new LogWriter(join(directory, 'b/logs'), { maxBytes: 20, maxFiles: 2 });
    for (const letter of 'abcdef') log.write('stdout', bytes(letter.repeat(10)));
    expect(readdirSync(join(directory, 'b/logs')).sort()).toEqual([segmentName(5), segmentName(6)]);
    expect(text(await all('b'))).toBe(`${'e'.repeat(10)}${'f'.repeat(10)}`);
  });

  test('that a crash cut off in the middle of a frame is read up to there', async () => {
    using log = new LogWriter(join(directory, 'c/logs'), { maxBytes: 1000, maxFiles: 2 });
    log.write('stdout', bytes('whole'));
    appendFileSync(join(directory, 'c/logs', segmentName(1)), new Uint8Array([0, 0, 0, 0, 200, 0, 0, 0, 1]));
    expect(text(await all('c'))).toBe('whole');
  });

  test('splits what is larger than a frame', async () => {
    using log = new LogWriter(join(directory, 'd/logs'), { maxBytes: 10 << 20, maxFiles: 2 });
    log.write('stdout', new Uint8Array(2_500_000));
    expect((await all('d')).map((record) => record.bytes.length)).toEqual([
      1 << 20,
      1 << 20,
      2_500_000 - (2 << 20),
    ]);
  });

  test('wakes its follower, and lets it go at the end', async () => {
    using log = new LogWriter(join(directory, 'e/logs'), { maxBytes: 30, maxFiles: 9 });
    let ended = false;
    const follower = readLogs(containerPaths(join(directory, 'e')), { follow: true }, () => ended);
    for (const part of ['first', 'second', 'third']) {
      log.write('stdout', bytes(part));
      expect(text([(await follower.next()).value].filter((record) => record !== undefined))).toBe(part);
    }
    ended = true;
    expect((await follower.next()).done).toBe(true);
  });

  test('lets its follower go when it is told to', async () => {
    mkdirSync(join(directory, 'f/logs'), { recursive: true });
    const controller = new AbortController();
    const follower = readLogs(
      containerPaths(join(directory, 'f')),
      { follow: true },
      () => false,
      controller.signal,
    );
    const next = follower.next();
    controller.abort();
    expect(next).rejects.toThrow();
  });

  test('has last lines', () => {
    const records = ['a\nb', 'c\n', 'd\ne\n'].map(
      (part, time): LogRecord => ({ time, stream: 'stdout', bytes: bytes(part) }),
    );
    expect(text(lastLines(records, 1))).toBe('e\n');
    expect(text(lastLines(records, 2))).toBe('d\ne\n');
    expect(text(lastLines(records, 3))).toBe('bc\nd\ne\n');
    expect(text(lastLines(records, 99))).toBe('a\nbc\nd\ne\n');
    expect(lastLines(records, 0)).toEqual([]);
  });
});

describe('the control protocol', () => {
  test('gives frames back, however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(...FRAME_KINDS), fc.uint8Array({ maxLength: 50 })), {
          maxLength: 8,
        }),
        fc.integer({ min: 1, max: 17 }),
        (frames, step) => {
          const stream = Buffer.concat(frames.map(([kind, content]) => encodeFrame(kind, content)));
          const decoder = new FrameDecoder();
          const found = [];
          for (let at = 0; at < stream.length; at += step)
            found.push(...decoder.push(stream.subarray(at, at + step)));
          expect(found.map((frame) => [frame.kind, Uint8Array.from(frame.bytes)] as const)).toEqual(
            frames.map(([kind, content]) => [kind, Uint8Array.from(content)] as const),
          );
        },
      ),
    );
  });

  test('refuses what is none of it', () => {
    expect(() => new FrameDecoder().push(new Uint8Array([255, 255, 255, 255, 0]))).toThrow(/no frame/);
    const frame = encodeMessage({ op: 'wait' });
    frame[4] = 77;
    expect(() => new FrameDecoder().push(frame)).toThrow(/no frame/);
  });
});

describe('overlay options', () => {
  const paths = { lower: ['/a', '/b'], upper: '/u', work: '/w', merged: '/m' };

  test('name the layers from the top', () => {
    expect(overlayOptions(paths, { volatile: true, userXattr: true })).toBe(
      'lowerdir=/a:/b,upperdir=/u,workdir=/w,index=off,userxattr,volatile',
    );
  });

  test('escape what the kernel would take for its own', () => {
    expect(overlayOptions({ ...paths, lower: ['/x:y,z\\'], upper: '/u,1', work: '/w:2' })).toBe(
      'lowerdir=/x\\:y\\,z\\\\,upperdir=/u\\,1,workdir=/w:2,index=off',
    );
  });

  test('must fit a page', () => {
    expect(() => overlayOptions({ ...paths, upper: `/${'u'.repeat(4096)}` })).toThrow(/too long/);
  });
});

describe('a path in the image', () => {
  let root: string;
  beforeAll(() => {
    root = join(directory, 'root');
    mkdirSync(join(root, 'real/deep'), { recursive: true });
    symlinkSync('/real', join(root, 'absolute'));
    symlinkSync('../../../../real', join(root, 'climbing'));
    symlinkSync('loop', join(root, 'loop'));
    symlinkSync('/missing/below', join(root, 'dangling'));
  });

  test.each([
    ['/real/deep', 'real/deep', 0],
    ['/absolute/deep', 'real/deep', 0],
    ['/climbing/deep', 'real/deep', 0],
    ['/../../../real', 'real', 0],
    ['/real/new/dir', 'real/new/dir', 2],
    ['/real/new/../deep', 'real/deep', 0],
    ['/dangling/x', 'missing/below/x', 3],
    ['/', '', 0],
  ])('%s never leaves it', (inside, expected, missing) => {
    expect(resolveInRootfs(root, inside)).toEqual({ path: join(root, expected), missing });
  });

  test('that is a loop of links is refused', () => {
    expect(() => resolveInRootfs(root, '/loop')).toThrow(/too many symbolic links/);
  });

  test('is made where that is wanted', () => {
    expect(makeDirectoryInRootfs(root, '/absolute/made', { create: true })).toEqual({
      path: join(root, 'real/made'),
      made: true,
    });
    expect(() => makeDirectoryInRootfs(root, '/nope', { create: false })).toThrow(/does not exist/);
  });
});

describe('a runtime’s failure', () => {
  const entry = (msg: string) => `${JSON.stringify({ level: 'error', msg, time: 'x' })}\n`;
  test.each([
    ['executable file `nope` not found in $PATH: No such file or directory', 127],
    ['executable file `/bin/nope` not found: No such file or directory', 127],
    ['open executable: Operation not permitted', 126],
    ['open executable: Permission denied', 126],
    ['exec container process `/bin/x`: Exec format error', 126],
    ['exec container process (missing dynamic library?) `/bin/x`: No such file or directory', 127],
    [
      'runc run failed: unable to start container process: exec: "nope": executable file not found in $PATH',
      127,
    ],
    ['runc run failed: unable to start container process: exec: "/etc": permission denied', 126],
    [
      'runc run failed: unable to start container process: exec: "/bin/x": stat /bin/x: no such file or directory',
      127,
    ],
    ['mount `/src` to `/dst`: No such file or directory', 125],
    ['error mounting "/src" to rootfs at "/dst": stat /src: no such file or directory', 125],
    ['write to `/sys/fs/cgroup/memory/x`: Permission denied', 125],
  ])('%s → %d', (message, code) => {
    expect(startFailure('crun', entry(message), '')).toEqual({
      exitCode: code as 125,
      message: `crun: ${message}`,
    });
  });

  test('is read from the last error of the log, else from what it printed', () => {
    expect(startFailure('crun', `${entry('first')}junk\n${entry('second')}`, 'x').message).toBe(
      'crun: second',
    );
    expect(startFailure('runc', '', 'one\ntwo\n').message).toBe('runc: two');
    expect(startFailure('runc', '', '').message).toBe('runc: it gave no reason');
  });
});

test('out-of-memory kills are read from both versions’ files', () => {
  expect(parseOomKills('oom_kill_disable 0\nunder_oom 0\noom_kill 2\n')).toBe(2);
  expect(parseOomKills('low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n')).toBe(1);
  expect(parseOomKills('')).toBe(0);
});

test.each([
  ['version 2', '0::/user.slice/a.scope\n', '/user.slice/a.scope'],
  ['the root of version 2', '0::/\n', '/'],
  ['version 1', '9:name=systemd:/s\n8:pids:/p\n4:cpu,cpuacct:/c\n', 'pids/p'],
  ['joined controllers', '4:cpu,cpuacct:/c d\n1:name=systemd:/\n', 'cpu,cpuacct/c d'],
  ['version 1 beside an empty version 2', '8:memory:/a:b\n0::/\n', 'memory/a:b'],
  ['version 2 told of first', '0::/\n8:memory:/a\n', 'memory/a'],
  ['names alone', '1:name=systemd:/s\n', undefined],
  ['nothing', '', undefined],
])('the own control group is found in %s', (_, text, group) => {
  expect(parseOwnGroup(text)).toBe(group);
});
