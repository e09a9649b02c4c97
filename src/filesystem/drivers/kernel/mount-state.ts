import { closeSync, fstatSync, ftruncateSync, openSync } from 'node:fs';
import { JOURNAL_PART_SIZE, Journal } from './journal.ts';
import { OpenTable } from './open-table.ts';

// Files of `passthroughFrom` bytes and more that may be open at the same time before tracking ends.
const OPEN_SLOTS = 4000;
const PAGE = 4096;
const TABLE_SIZE = Math.ceil(OpenTable.sizeFor(OPEN_SLOTS) / PAGE) * PAGE;

/** What must outlive the server of a mount: who has which large file open, and, on old kernels, the requests. */
export interface MountState {
  readonly table: OpenTable;
  readonly journal: Journal | undefined;
}

/** State that ends with the process. */
export function transientState(): MountState {
  return { table: new OpenTable(new Uint8Array(OpenTable.sizeFor(OPEN_SLOTS))), journal: undefined };
}

/** Makes (or empties) the state file of a new mount, with room for the requests of so many threads. */
export function createState(path: string, threads: number): MountState {
  const file = openSync(path, 'w', 0o600);
  try {
    ftruncateSync(file, TABLE_SIZE + threads * JOURNAL_PART_SIZE);
  } finally {
    closeSync(file);
  }
  return mapState(path);
}

/** Opens the state file that a predecessor left, making room for more threads than it had. */
export function inheritState(path: string, threads: number): MountState {
  const file = openSync(path, 'r+');
  try {
    const size = TABLE_SIZE + threads * JOURNAL_PART_SIZE;
    if (fstatSync(file).size < size) ftruncateSync(file, size);
  } finally {
    closeSync(file);
  }
  return mapState(path);
}

/** The journal in a state file, for a thread's own mapping. */
export function mapJournal(path: string): Journal {
  return new Journal(Bun.mmap(path, { shared: true }).subarray(TABLE_SIZE));
}

function mapState(path: string): MountState {
  const bytes = Bun.mmap(path, { shared: true });
  return {
    table: new OpenTable(bytes.subarray(0, TABLE_SIZE)),
    journal: new Journal(bytes.subarray(TABLE_SIZE)),
  };
}
