import { mountFuseNative } from '../../../src/filesystem/drivers/fuse-native/index.ts';
import type {
  ImageFileSystem,
  MountedFileSystem,
} from '../../../src/filesystem/drivers/fuse-native/interface.ts';

/** A driver as the suite sees it. A new one is a new entry here, and passes all tests or says below why not. */
export interface DriverUnderTest {
  readonly name: string;
  mount(fs: ImageFileSystem, mountpoint: string): Promise<MountedFileSystem>;
}

export const DRIVERS: readonly DriverUnderTest[] = [
  { name: 'fuse-native', mount: (fs, mountpoint) => mountFuseNative(fs, mountpoint) },
];
