export { type FuseNativeMountOptions, mount } from './mount.ts';
