import type { IndexLimits } from './types.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/** docs/decisions/0005-span-size.md: what an index costs against what a read fetches too much. */
export const DEFAULT_SPAN_SIZE = 512 * 1024;
export const MINIMUM_SPAN_SIZE = 64 * 1024;
export const MAXIMUM_SPAN_SIZE = 64 * MIB;

/** Real layers stay far below each of these; what is above them is an attack or a defect. */
export const DEFAULT_LIMITS: IndexLimits = {
  uncompressedBytes: 1024 * GIB,
  // Deflate itself can't exceed 1032, and only for a layer of nothing but zeros: such as one with a swap file or the
  // disk of a machine, which are of some GiB and cost some seconds.
  ratio: 1000,
  ratioFloorBytes: 16 * GIB,
  entries: 20_000_000,
  // The largest xattr set that Linux takes is 64 KiB a value and 64 KiB of names.
  headerBytes: MIB,
  metadataBytes: 2 * GIB,
  holeBytes: 64 * GIB,
  sparsePieces: 1_000_000,
};
