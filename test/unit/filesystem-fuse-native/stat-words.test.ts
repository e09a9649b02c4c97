import { expect, test } from 'bun:test';
import {
  encodeDevice,
  STAT_WORDS,
  STATFS_WORDS,
  writeStat,
  writeStatfs,
} from '../../../src/filesystem/drivers/fuse-native/stat-words.ts';

const ATTRIBUTES = {
  ino: 7,
  mode: 0o104755,
  uid: 4_000_000_000,
  gid: 5,
  size: 0x12_3456_789a,
  blocks: 0x3_0000_0007,
  nlink: 2,
  rdevMajor: 0,
  rdevMinor: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
};

test('sizes and block counts are split into low and high words', () => {
  const words = new Uint32Array(STAT_WORDS);
  writeStat(words, ATTRIBUTES);
  expect([...words.subarray(0, 9)]).toEqual([0o104755, 4_000_000_000, 5, 0x3456_789a, 0x12, 0, 2, 7, 0]);
  expect((words[10] ?? 0) + (words[11] ?? 0) * 2 ** 32).toBe(0x3_0000_0007);
});

test.each([0, 1, -1, -2_000_000_000, 2 ** 31, 2 ** 32 + 7, -(2 ** 33) - 5])(
  'the time %d becomes a 64-bit two’s complement',
  (mtimeSeconds) => {
    const words = new Uint32Array(STAT_WORDS);
    writeStat(words, { ...ATTRIBUTES, mtimeSeconds, mtimeNanoseconds: 999_999_999 });
    const [nanoseconds = 0, low = 0, high = 0] = words.subarray(12, 15);
    expect(nanoseconds).toBe(999_999_999);
    expect(BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low))).toBe(BigInt(mtimeSeconds));
  },
);

test.each([
  [0, 0, 0],
  [1, 3, 0x103],
  [259, 70_000, 0x1111_0370],
  [4095, 0xfffff, 0xffff_ffff],
])('device %d:%d is Linux’s %d', (major, minor, encoded) => {
  expect(encodeDevice(major, minor)).toBe(encoded);
});

test('a file system larger than the words can say is said as large as they can', () => {
  const words = new Uint32Array(STATFS_WORDS);
  writeStatfs(words, {
    blockSize: 4096,
    blocks: 2 ** 40,
    freeBlocks: 3,
    files: 12,
    freeFiles: 2,
    nameMax: 255,
  });
  expect([...words]).toEqual([4096, 4096, 2 ** 32 - 1, 3, 3, 12, 2, 2, 0, 0, 255]);
});
