import type { Attributes } from '../../../index/index.ts';
import type { FileSystemStatistics } from '../../image-file-system.ts';

const WORD = 0x1_0000_0000;

/** How many 32-bit words fuse-native reads for a `struct stat`, and for a `struct statvfs`. */
export const STAT_WORDS = 18;
export const STATFS_WORDS = 11;

/** Writes `attributes` in the order of fuse-native's `populate_stat`; the time as our `imgcred_signal_getattr` has it. */
export function writeStat(words: Uint32Array, attributes: Attributes): void {
  const { size, blocks, mtimeSeconds } = attributes;
  words[0] = attributes.mode;
  words[1] = attributes.uid;
  words[2] = attributes.gid;
  words[3] = size % WORD;
  words[4] = Math.floor(size / WORD);
  words[5] = 0;
  words[6] = attributes.nlink;
  words[7] = attributes.ino;
  words[8] = encodeDevice(attributes.rdevMajor, attributes.rdevMinor);
  words[9] = 4096;
  words[10] = blocks % WORD;
  words[11] = Math.floor(blocks / WORD);
  words[12] = attributes.mtimeNanoseconds;
  words[13] = mtimeSeconds; // modulo 2^32: the lower half of the two's complement
  words[14] = Math.floor(mtimeSeconds / WORD); // the upper half, −1 for times before 1970
}

/** Writes `statistics` in the order of fuse-native's `populate_statvfs`, whose words have 32 bits. */
export function writeStatfs(words: Uint32Array, statistics: FileSystemStatistics): void {
  const largest = WORD - 1;
  words.fill(0);
  words[0] = statistics.blockSize;
  words[1] = statistics.blockSize;
  words[2] = Math.min(statistics.blocks, largest);
  words[3] = words[4] = Math.min(statistics.freeBlocks, largest);
  words[5] = Math.min(statistics.files, largest);
  words[6] = words[7] = Math.min(statistics.freeFiles, largest);
  words[10] = statistics.nameMax;
}

/** Linux's 32-bit device number: 12 bits major, 20 bits minor, the minor's upper 12 above the major. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}
