export {
  createImageFileSystem,
  type FileSystemStatistics,
  type ImageFileSystem,
} from './image-file-system.ts';
export type { FuseDriver, MountedFileSystem, MountOptions } from './mounted-file-system.ts';
