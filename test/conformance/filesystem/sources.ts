import { DRIVERS } from './drivers.ts';

/** Where the suite's tree comes from, and what that place cannot do. */
export interface TreeSource {
  readonly name: 'memory' | 'image';
  /** Bytes of the sparse file. */
  readonly sparseSize: number;
  readonly sockets: boolean;
}

/** A `MemoryFileSystem`: everything a driver may be asked, and content that comes when the test says. */
export const MEMORY: TreeSource = { name: 'memory', sparseSize: 2 ** 40, sockets: true };

/** A gzip layer, indexed, and read span by span through a content store. A tar holds no sockets. */
export const IMAGE: TreeSource = { name: 'image', sparseSize: 2 ** 32 + 2 ** 20, sockets: false };

/** Each driver over each source. */
export const DRIVERS_AND_SOURCES = DRIVERS.flatMap(({ name }) =>
  [MEMORY, IMAGE].map((source) => ({ driver: name, source, title: `${name} over ${source.name}` })),
);
