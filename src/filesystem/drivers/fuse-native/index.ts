export { type FuseNativeMount, type FuseNativeMountOptions, mountFuseNative } from './mount.ts';
