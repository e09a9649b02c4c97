export interface Attributes {
  readonly ino: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly nlink: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

export interface FileSystemStatistics {
  readonly blocks: number;
  readonly blockSize: number;
  readonly files: number;
  readonly nameMax: number;
}

export interface ImageFileSystem {
  getattr(ino: number): Attributes;
  lookup(parent: number, name: Uint8Array): number;
  readlink(ino: number): Uint8Array;
  entryCount(directory: number): number;
  entry(directory: number, index: number): { name: Uint8Array; ino: number; mode: number };
  parent(directory: number): number;
  getxattr(ino: number, name: Uint8Array): Uint8Array | undefined;
  listxattr(ino: number): readonly Uint8Array[];
  readNow(ino: number, offset: number, into: Uint8Array): number;
  read(ino: number, offset: number, into: Uint8Array, signal?: AbortSignal): Promise<number>;
  statfs(): FileSystemStatistics;
}

export interface MountedFileSystem {
  readonly mountpoint: string;
  readonly driver: 'fuse-native' | 'kernel';
  unmount(): Promise<void>;
}
