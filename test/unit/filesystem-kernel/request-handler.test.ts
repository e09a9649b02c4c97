import { describe, expect, test } from 'bun:test';
import { ImgcredError } from '../../../src/errors/index.ts';
import { Errno, Opcode, WRITE_OPCODES } from '../../../src/filesystem/drivers/kernel/protocol.ts';
import { Reply } from '../../../src/filesystem/drivers/kernel/replies.ts';
import {
  nextData,
  nextHole,
  Outcome,
  RequestHandler,
} from '../../../src/filesystem/drivers/kernel/request-handler.ts';
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';
import { decode, fields, readBody, requestBytes } from './request-bytes.ts';

function tree() {
  const fs = new MemoryFileSystem();
  const directory = fs.directory('/etc');
  const file = fs.file('/etc/passwd', 'root:x:0:0', {
    mode: 0o4755,
    uid: 4_000_000_000,
    gid: 5,
    mtimeSeconds: -2,
    mtimeNanoseconds: 123_456_789,
    xattrs: { 'user.a': Buffer.from('value'), 'user.b': Buffer.from('') },
  });
  const link = fs.symlink('/link', 'etc/passwd');
  const device = fs.special('/null', 0o020666, 259, 70_000);
  const missing = fs.file('/missing', { size: 10, fill: () => {}, ready: new Promise(() => {}) });
  return { fs, directory, file, link, device, missing };
}

function ask(
  handler: RequestHandler,
  opcode: number,
  parts: Parameters<typeof requestBytes>[1],
  room = 1 << 20,
): { outcome: Outcome; error: number; body: Buffer } {
  const { request, result } = decode(requestBytes(opcode, parts));
  expect(result).toBe(0);
  const reply = new Reply(room);
  const outcome = handler.handle(request, reply);
  const bytes = Buffer.from(reply.memory.bytes.slice(0, reply.length));
  if (outcome === Outcome.REPLY) expect(bytes.readUInt32LE(0)).toBe(reply.length);
  return { outcome, error: 0 - bytes.readInt32LE(4), body: bytes.subarray(16) };
}

/** Takes a READDIR or READDIRPLUS body apart. */
function entries(
  body: Buffer,
  plus: boolean,
): { name: string; ino: number; next: number; type: number; node: number }[] {
  const found = [];
  for (let at = 0; at < body.length; ) {
    const node = plus ? Number(body.readBigUInt64LE(at)) : 0;
    const dirent = at + (plus ? 128 : 0);
    const length = body.readUInt32LE(dirent + 16);
    found.push({
      node,
      ino: Number(body.readBigUInt64LE(dirent)),
      next: Number(body.readBigUInt64LE(dirent + 8)),
      type: body.readUInt32LE(dirent + 20),
      name: body.toString('latin1', dirent + 24, dirent + 24 + length),
    });
    at = dirent + ((24 + length + 7) & ~7);
  }
  return found;
}

describe('the request handler', () => {
  const { fs, directory, file, link, device, missing } = tree();
  const handler = new RequestHandler(fs, Number.POSITIVE_INFINITY);

  test('answers LOOKUP with the inode and all of its attributes', () => {
    const { error, body } = ask(handler, Opcode.LOOKUP, { node: directory, body: fields('passwd') });
    expect(error).toBe(0);
    expect(body.length).toBe(128);
    expect(Number(body.readBigUInt64LE(0))).toBe(file);
    const attr = body.subarray(40);
    expect(attr.readBigUInt64LE(8)).toBe(10n);
    expect(attr.readBigUInt64LE(16)).toBe(1n);
    expect(attr.readBigInt64LE(32)).toBe(-2n);
    expect(attr.readUInt32LE(52)).toBe(123_456_789);
    expect(attr.readUInt32LE(60)).toBe(0o104755);
    expect(attr.readUInt32LE(68)).toBe(4_000_000_000);
  });

  test('answers LOOKUP of an absent name with an entry that the kernel remembers', () => {
    const { error, body } = ask(handler, Opcode.LOOKUP, { node: directory, body: fields('shadow') });
    expect(error).toBe(0);
    expect(body.readBigUInt64LE(0)).toBe(0n);
    expect(body.readBigUInt64LE(16)).toBe(0xffff_ffffn);
  });

  test('answers LOOKUP of . and .., which come from file handles', () => {
    const dot = ask(handler, Opcode.LOOKUP, { node: file, body: fields('.') });
    expect(Number(dot.body.readBigUInt64LE(0))).toBe(file);
    const dotDot = ask(handler, Opcode.LOOKUP, { node: directory, body: fields('..') });
    expect(Number(dotDot.body.readBigUInt64LE(0))).toBe(1);
  });

  test('packs device numbers as the kernel does', () => {
    const { body } = ask(handler, Opcode.GETATTR, { node: device, body: new Uint8Array(16) });
    // new_encode_dev(259, 70000)
    expect(body.readUInt32LE(16 + 76)).toBe((70_000 & 0xff) | (259 << 8) | ((70_000 & ~0xff) << 12));
  });

  test('answers STATX with the basic statistics', () => {
    const { body } = ask(handler, Opcode.STATX, { node: file, body: new Uint8Array(24) });
    expect(body.length).toBe(288);
    const stat = body.subarray(32);
    expect(stat.readUInt16LE(28)).toBe(0o104755);
    expect(stat.readBigUInt64LE(40)).toBe(10n);
    expect(stat.readBigInt64LE(112)).toBe(-2n);
  });

  test('answers READLINK with the target, and EINVAL for what is no symlink', () => {
    expect(ask(handler, Opcode.READLINK, { node: link }).body.toString()).toBe('etc/passwd');
    expect(ask(handler, Opcode.READLINK, { node: file }).error).toBe(Errno.EINVAL);
  });

  test('opens files for reading, and neither for writing nor as directories', () => {
    const open = (node: number, flags: number) => ask(handler, Opcode.OPEN, { node, body: fields(flags, 0) });
    expect(open(file, 0).body.readUInt32LE(8)).toBe(0x22);
    expect(open(file, 1).error).toBe(Errno.EROFS);
    expect(open(file, 2).error).toBe(Errno.EROFS);
    expect(open(directory, 0).error).toBe(Errno.EISDIR);
  });

  test('hands opens of large files on', () => {
    const tracking = new RequestHandler(fs, 10);
    expect(ask(tracking, Opcode.OPEN, { node: file, body: fields(0, 0) }).outcome).toBe(Outcome.FORWARD);
    expect(ask(tracking, Opcode.RELEASE, { node: file, body: fields(1n, 0, 0, 0n) }).outcome).toBe(
      Outcome.FORWARD,
    );
    expect(ask(tracking, Opcode.RELEASE, { node: file, body: fields(0n, 0, 0, 0n) }).outcome).toBe(
      Outcome.REPLY,
    );
  });

  const reads: [string, bigint, number, string][] = [
    ['the whole file', 0n, 4096, 'root:x:0:0'],
    ['a middle part', 5n, 1, 'x'],
    ['what is left at the end', 8n, 4096, ':0'],
    ['nothing at the end', 10n, 4096, ''],
    ['nothing far beyond the end', 2n ** 40n, 4096, ''],
    ['nothing when asked for nothing', 0n, 0, ''],
  ];
  test.each(reads)('reads %s', (_, offset, size, expected) => {
    const { error, body } = ask(handler, Opcode.READ, { node: file, body: readBody(0n, offset, size) });
    expect(error).toBe(0);
    expect(body.toString()).toBe(expected);
  });

  test('never reads more than its buffer holds', () => {
    const { body } = ask(handler, Opcode.READ, { node: file, body: readBody(0n, 0n, 0xffff_ffff) }, 128);
    expect(body.length).toBe(10);
    const large = new MemoryFileSystem();
    const node = large.file('/a', { size: 5000, fill: (_: number, into: Uint8Array) => into.fill(1) });
    const got = ask(
      new RequestHandler(large, 1e9),
      Opcode.READ,
      { node, body: readBody(0n, 0n, 0xffff_ffff) },
      128,
    );
    expect(got.body.length).toBe(128);
  });

  test('hands on reads of what is not local, but not those beyond the end', () => {
    expect(ask(handler, Opcode.READ, { node: missing, body: readBody(0n, 0n, 10) }).outcome).toBe(
      Outcome.FORWARD,
    );
    expect(ask(handler, Opcode.READ, { node: missing, body: readBody(0n, 10n, 10) }).outcome).toBe(
      Outcome.REPLY,
    );
  });

  test.each([
    ['READDIR', Opcode.READDIR, false],
    ['READDIRPLUS', Opcode.READDIRPLUS, true],
  ] as const)('%s in small pieces names everything once', (_, opcode, plus) => {
    const seen: string[] = [];
    for (let cookie = 0n, rounds = 0; rounds < 100; rounds++) {
      const { error, body } = ask(handler, opcode, { node: 1, body: readBody(0n, cookie, plus ? 170 : 40) });
      expect(error).toBe(0);
      const found = entries(body, plus);
      if (found.length === 0) break;
      expect(body.length).toBeLessThanOrEqual(170);
      seen.push(...found.map(({ name }) => name));
      cookie = BigInt(found.at(-1)?.next ?? 0);
    }
    expect(seen.toSorted()).toEqual(['.', '..', 'etc', 'link', 'missing', 'null']);
  });

  test('READDIRPLUS gives no inode for . and .., which the kernel would not count', () => {
    const { body } = ask(handler, Opcode.READDIRPLUS, { node: directory, body: readBody(0n, 0n, 4096) });
    expect(entries(body, true).map(({ name, node, ino }) => [name, node, ino])).toEqual([
      ['.', 0, directory],
      ['..', 0, 1],
      ['passwd', file, file],
    ]);
  });

  test('a directory read from a cookie beyond its end is empty', () => {
    for (const cookie of [6n, 2n ** 31n, 2n ** 50n]) {
      expect(ask(handler, Opcode.READDIR, { node: 1, body: readBody(0n, cookie, 4096) }).body.length).toBe(0);
    }
    expect(ask(handler, Opcode.READDIR, { node: 1, body: readBody(0n, 2n ** 60n, 4096) }).error).toBe(
      Errno.EINVAL,
    );
    expect(ask(handler, Opcode.READDIR, { node: file, body: readBody(0n, 0n, 4096) }).error).toBe(
      Errno.ENOTDIR,
    );
  });

  test('GETXATTR gives size, value, ERANGE or ENODATA', () => {
    const get = (room: number, name: string) =>
      ask(handler, Opcode.GETXATTR, { node: file, body: fields(room, 0, name) });
    expect(get(0, 'user.a').body.readUInt32LE(0)).toBe(5);
    expect(get(5, 'user.a').body.toString()).toBe('value');
    expect(get(4, 'user.a').error).toBe(Errno.ERANGE);
    expect(get(64, 'user.b')).toMatchObject({ error: 0, body: { length: 0 } });
    expect(get(64, 'user.c').error).toBe(Errno.ENODATA);
  });

  test('LISTXATTR gives the names, each with its NUL', () => {
    const list = (room: number) => ask(handler, Opcode.LISTXATTR, { node: file, body: fields(room, 0) });
    expect(list(0).body.readUInt32LE(0)).toBe(14);
    expect(list(14).body.toString()).toBe('user.a\0user.b\0');
    expect(list(13).error).toBe(Errno.ERANGE);
  });

  test('refuses everything that writes', () => {
    for (const opcode of WRITE_OPCODES) {
      expect(ask(handler, opcode, { node: 1, body: new Uint8Array(128) }).error).toBe(Errno.EROFS);
    }
  });

  test('does not know other operations', () => {
    for (const opcode of [Opcode.OPENDIR, Opcode.FLUSH, 39, 40, 49, 999, 4096]) {
      expect(ask(handler, opcode, { node: 1, body: new Uint8Array(64) }).error).toBe(Errno.ENOSYS);
    }
  });

  test('does not answer FORGET', () => {
    expect(ask(handler, Opcode.FORGET, { node: 1, body: fields(1n) }).outcome).toBe(Outcome.SILENT);
    expect(ask(handler, Opcode.BATCH_FORGET, { node: 1, body: fields(1000, 0) }).outcome).toBe(
      Outcome.SILENT,
    );
  });

  test('turns what the file system throws into error numbers', () => {
    const failing = new MemoryFileSystem();
    const cases: [Error, number][] = [
      [new ImgcredError('NOT_FOUND', 'no such inode'), Errno.ENOENT],
      [new ImgcredError('CORRUPT', 'bad'), Errno.EIO],
      [new RangeError('offset'), Errno.EIO],
    ];
    for (const [error, number] of cases) {
      failing.getattr = () => {
        throw error;
      };
      const answer = ask(new RequestHandler(failing, 1e9), Opcode.GETATTR, { body: new Uint8Array(16) });
      expect(answer.error).toBe(number);
    }
  });
});

describe('data and holes', () => {
  const extents = [
    { fileOffset: 10, length: 5 },
    { fileOffset: 15, length: 5 },
    { fileOffset: 30, length: 10 },
  ];
  const cases: [number, number, number][] = [
    [0, 10, 0],
    [10, 10, 20],
    [14, 14, 20],
    [20, 30, 20],
    [29, 30, 29],
    [39, 39, 40],
    [40, -1, 40],
    [49, -1, 49],
  ];
  test.each(cases)('from %d the next data is at %d, the next hole at %d', (offset, data, hole) => {
    expect(nextData(extents, offset)).toBe(data);
    expect(nextHole(extents, offset, 50)).toBe(hole);
  });
});
