import {
  type ImageFileSystem,
  type MountedFileSystem,
  mountFuseNative,
  mountKernel,
} from '../../../src/filesystem/index.ts';

/** A driver as the suite sees it. A new one is a new entry here, and passes all tests or says below why not. */
export interface DriverUnderTest {
  readonly name: string;
  mount(fs: ImageFileSystem, mountpoint: string): Promise<MountedFileSystem>;
}

export const DRIVERS: readonly DriverUnderTest[] = [
  { name: 'fuse-native', mount: (fs, mountpoint) => mountFuseNative(fs, mountpoint) },
  { name: 'kernel', mount: (fs, mountpoint) => mountKernel(fs, mountpoint) },
];
