export { type FuseNativeMount, mountFuseNative } from './mount.ts';
export type { FuseNativeMountOptions } from './mount-options.ts';
