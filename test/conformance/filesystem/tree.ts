import type { MemoryAttributes, MemoryContent } from '../../fixtures/memory-file-system.ts';

export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;

export const MANY = 100_000;
export const PATTERN_SIZE = 5 * 1024 * 1024 + 123;
export const SPARSE_DATA = Buffer.from('an island in the sparse file');
export const SLOW_FILES = 40;
export const SLOW_SIZE = 200_000;
export const DEEP_LEVELS = 20;
export const DEEP_NAME = 'd'.repeat(250);
export const LONG_NAME = 'n'.repeat(255);
export const LONG_TARGET = `/${'t'.repeat(4094)}`;
export const BIG_ID = 4_000_000_000;

/** CAP_NET_BIND_SERVICE, permitted and effective, as setcap(8) writes it: version 2, little endian. */
export const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex');
export const LARGE_XATTR = Buffer.alloc(40_000, 'v');

/** Names which are not what a careless program expects, as byte strings. */
export const ODD_NAMES: readonly string[] = [
  '\xff\xfe\x80',
  'new\nline',
  'back\\slash',
  ' spaces ',
  '-rf',
  '\x01',
  '*?[',
  '...',
  Buffer.from('größe-日本-🐳').toString('latin1'),
];

/** The modification times that must come through, in seconds and nanoseconds. */
export const TIMES: Readonly<Record<string, readonly [seconds: number, nanoseconds: number]>> = {
  epoch: [0, 0],
  'before-1970': [-1, 999_999_999],
  'long-before-1970': [-2_000_000_000, 1],
  nanoseconds: [1_700_000_000, 123_456_789],
  'after-2038': [2 ** 31 + 5, 500],
  'after-2106': [2 ** 32 + 7, 1_000],
};

export const MODES = [0o000, 0o400, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o1777] as const;

/** Byte `offset` of the pattern: no period that a page, a span or a read-ahead could hide. */
export function fillPattern(offset: number, into: Uint8Array): void {
  for (let i = 0; i < into.length; i++) into[i] = patternByte(offset + i);
}

export function patternByte(offset: number): number {
  return (Math.imul((offset ^ 0x5bd1e995) >>> 0, 2654435761) >>> 24) ^ (offset & 0xff);
}

/** Where the sparse file of `size` bytes has data; between these it is holes. */
export function sparseOffsets(size: number): number[] {
  return [0, 3 * 2 ** 30 + 17, size - SPARSE_DATA.length];
}

/** What can take the tree in: a file system in memory, or the tar of an image's layer. Paths are byte strings. */
export interface TreeBuilder {
  directory(path: string, attributes?: MemoryAttributes): unknown;
  /** Returns what `hardLink` wants. */
  file(path: string, content: MemoryContent | Uint8Array | string, attributes?: MemoryAttributes): number;
  symlink(path: string, target: string, attributes?: MemoryAttributes): unknown;
  special(path: string, mode: number, major: number, minor: number, attributes?: MemoryAttributes): unknown;
  hardLink(path: string, file: number): void;
}

/** What the tree cannot hold itself: programs that the test compiled, and the moment when slow content comes. */
export interface TreeInputs {
  readonly programs: Readonly<Record<string, Uint8Array>>;
  /** Bytes of the sparse file. */
  readonly sparseSize: number;
  /** Content that is not local, until told. `name` is the file's, below `/slow`. */
  readonly remote: (name: string, content: MemoryContent) => MemoryContent;
}

/** The tree that every test of the suite looks at. */
export function populate(fs: TreeBuilder, inputs: TreeInputs): void {
  fs.file('/plain', 'hello\n');
  fs.file('/empty', '');
  fs.file('/pattern', { size: PATTERN_SIZE, fill: fillPattern });
  addAttributes(fs);
  addNames(fs);
  addLinks(fs);
  addXattrs(fs);
  addRemote(fs, inputs);
  addPrograms(fs, inputs);
  fs.file('/sparse', sparseContent(inputs.sparseSize));
  fs.directory('/many');
  for (let i = 0; i < MANY; i++) fs.file(`/many/entry-${i}`, '');
  fs.directory('/void');
  fs.directory('/lower');
  fs.directory('/lower/directory', { mode: 0o750, gid: 7 });
  fs.file('/lower/directory/file', 'below\n', {
    mode: 0o640,
    xattrs: { 'user.origin': Buffer.from('image') },
  });
  fs.file('/lower/file', { size: PATTERN_SIZE, fill: fillPattern });
}

function addAttributes(fs: TreeBuilder): void {
  fs.directory('/modes');
  for (const mode of MODES) fs.file(`/modes/${mode.toString(8)}`, 'x', { mode });
  fs.directory('/modes/sticky', { mode: 0o1777 });
  fs.directory('/modes/closed', { mode: 0o700 });
  fs.file('/modes/closed/file', 'x');
  fs.file('/owned', 'x', { uid: 1234, gid: 5678 });
  fs.file('/owned-big', 'x', { uid: BIG_ID, gid: BIG_ID + 1 });
  fs.directory('/times');
  for (const [name, [mtimeSeconds, mtimeNanoseconds]] of Object.entries(TIMES)) {
    fs.file(`/times/${name}`, 'x', { mtimeSeconds, mtimeNanoseconds });
  }
  fs.directory('/special');
  fs.special('/special/null', S_IFCHR | 0o666, 1, 3);
  fs.special('/special/zero', S_IFCHR | 0o666, 1, 5);
  fs.special('/special/block', S_IFBLK | 0o660, 259, 70_000);
  fs.special('/special/fifo', S_IFIFO | 0o600, 0, 0);
  fs.special('/special/socket', S_IFSOCK | 0o600, 0, 0);
}

function addNames(fs: TreeBuilder): void {
  fs.directory('/names');
  fs.file(`/names/${LONG_NAME}`, 'long');
  for (const name of ODD_NAMES) fs.file(`/names/${name}`, name);
  let path = '/deep';
  fs.directory(path);
  for (let level = 0; level < DEEP_LEVELS; level++) {
    path += `/${DEEP_NAME}`;
    fs.directory(path);
  }
  fs.file(`${path}/bottom`, 'bottom\n');
}

function addLinks(fs: TreeBuilder): void {
  fs.directory('/links');
  const ino = fs.file('/links/first', 'linked\n');
  fs.hardLink('/links/second', ino);
  fs.directory('/links/elsewhere');
  fs.hardLink('/links/elsewhere/third', ino);
  fs.symlink('/links/relative', 'first');
  fs.symlink('/links/up', '../plain');
  fs.symlink('/links/directory', 'elsewhere');
  fs.symlink('/links/dangling', 'nowhere');
  fs.symlink('/links/long', LONG_TARGET);
  fs.symlink('/links/bytes', '\xff\xfe');
  fs.symlink('/links/loop', 'loop');
}

function addXattrs(fs: TreeBuilder): void {
  fs.directory('/xattrs', { xattrs: { 'user.directory': Buffer.from('yes') } });
  fs.file('/xattrs/none', '');
  fs.file('/xattrs/some', '', {
    xattrs: {
      'user.text': Buffer.from('value'),
      'user.empty': new Uint8Array(0),
      'user.binary': Uint8Array.of(0, 1, 0xff, 0),
      'trusted.note': Buffer.from('for root'),
    },
  });
  fs.file('/xattrs/large', '', { xattrs: { 'user.large': LARGE_XATTR } });
  const many: Record<string, Uint8Array> = {};
  for (let i = 0; i < 200; i++) many[`user.${'k'.repeat(100)}${i}`] = Buffer.from(String(i));
  fs.file('/xattrs/many', '', { xattrs: many });
}

function addRemote(fs: TreeBuilder, inputs: TreeInputs): void {
  fs.directory('/slow');
  for (let i = 0; i < SLOW_FILES; i++) {
    const name = `file-${i}`;
    fs.file(`/slow/${name}`, inputs.remote(name, { size: SLOW_SIZE, fill: fillPattern }));
  }
  for (const name of ['broken', 'healed']) {
    fs.file(`/slow/${name}`, inputs.remote(name, { size: SLOW_SIZE, fill: fillPattern }));
  }
}

function addPrograms(fs: TreeBuilder, inputs: TreeInputs): void {
  fs.directory('/bin');
  for (const [name, bytes] of Object.entries(inputs.programs)) {
    fs.file(`/bin/${name}`, bytes, { mode: 0o755 });
    fs.file(`/bin/${name}-setuid`, bytes, { mode: 0o4755 });
    fs.file(`/bin/${name}-capable`, bytes, { mode: 0o755, xattrs: { 'security.capability': CAPABILITY } });
  }
  fs.file('/bin/script', '#!/bin/sh\necho "script $1"\n', { mode: 0o755 });
}

function sparseContent(size: number): MemoryContent {
  const offsets = sparseOffsets(size);
  const fill = (offset: number, into: Uint8Array) => {
    into.fill(0);
    for (const start of offsets) {
      for (let i = 0; i < SPARSE_DATA.length; i++) {
        const at = start + i - offset;
        if (at >= 0 && at < into.length) into[at] = SPARSE_DATA[i] ?? 0;
      }
    }
  };
  return { size, fill, data: offsets.map((offset) => ({ offset, length: SPARSE_DATA.length })) };
}
