import { expect, test } from 'bun:test';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImgcredError } from '../../../../src/errors/index.ts';
import { type KernelFileSystem, MainServer } from '../../../../src/filesystem/drivers/kernel/main-server.ts';
import { Opcode } from '../../../../src/filesystem/drivers/kernel/protocol.ts';
import { silentLogger } from '../../../../src/observability/index.ts';

const REPEATED = 0x8000_0000;
const UNIQUE = 42;
const NODE = 7;

/** A READ of 4 bytes, as the kernel writes it: fuse_in_header and fuse_read_in. */
function readRequest(uniqueHigh: number): Uint8Array {
  const bytes = new Uint8Array(80);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint32(4, Opcode.READ, true);
  view.setUint32(8, UNIQUE, true);
  view.setUint32(12, uniqueHigh, true);
  view.setBigUint64(16, BigInt(NODE), true);
  view.setUint32(56, 4, true);
  return bytes;
}

/** The uniques' upper halves of the replies in a file, in their order. */
function repliesIn(path: string): number[] {
  const bytes = readFileSync(path);
  const found: number[] = [];
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at)) found.push(bytes.readUInt32LE(at + 12));
  return found;
}

/** One file of 4 bytes, which are not here yet. */
function oneFile(read: Promise<number>): KernelFileSystem {
  const absent = () => {
    throw new ImgcredError('NOT_FOUND', 'there is one file only');
  };
  return {
    getattr: () => ({
      ...{ ino: NODE, mode: 0o100644, size: 4, uid: 0, gid: 0, blocks: 1, nlink: 1 },
      ...{ rdevMajor: 0, rdevMinor: 0, mtimeSeconds: 0, mtimeNanoseconds: 0 },
    }),
    readNow: () => -1,
    read: () => read,
    lookup: () => 0,
    entryCount: () => 0,
    listxattr: () => [],
    getxattr: () => undefined,
    readlink: absent,
    entry: absent,
    parent: absent,
    statfs: absent,
  };
}

test.each([
  ['in the order in which the kernel sent them', [0, REPEATED]],
  ['the other way round', [REPEATED, 0]],
])('a request and its repetition that arrive %s are answered', async (_, order) => {
  const directory = mkdtempSync(join(tmpdir(), 'imgcred-main-server-'));
  const path = join(directory, 'replies');
  const descriptor = openSync(path, 'a');
  const read = Promise.withResolvers<number>();
  try {
    const server = new MainServer(
      descriptor,
      oneFile(read.promise),
      undefined,
      Number.POSITIVE_INFINITY,
      silentLogger,
    );
    const settled = Promise.withResolvers<void>();
    for (const high of order)
      server.receive(readRequest(high), () => server.waiting === 0 && settled.resolve());
    expect(server.waiting).toBe(1);
    read.resolve(4);
    await settled.promise;
    expect(repliesIn(path)).toEqual([REPEATED]);
  } finally {
    closeSync(descriptor);
    rmSync(directory, { recursive: true });
  }
});
