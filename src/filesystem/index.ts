export { forbidCoreDumps } from './core-dumps.ts';
export { type FuseNativeMountOptions, mountFuseNative } from './drivers/fuse-native/index.ts';
export {
  duplicateDescriptorOf,
  type KernelDriverProbe,
  type KernelMount,
  keepServerThreads,
  mountKernel,
  probeKernelDriver,
  resumeKernel,
} from './drivers/kernel/index.ts';
export {
  createImageFileSystem,
  type FileSystemStatistics,
  type ImageFileSystem,
} from './image-file-system.ts';
export { findMountHelper, unmountByHelper } from './mount-helper.ts';
export { type MountEntry, mountedDevice, parseMountTable, readMountTable } from './mount-table.ts';
export type { FuseDriver, MountedFileSystem, MountOptions } from './mounted-file-system.ts';
export * from './syscalls.ts';
export {
  type IdRange,
  isMapped,
  parseIdMap,
  readUserNamespace,
  type UserNamespace,
} from './user-namespace.ts';
