export { duplicateDescriptorOf } from './foreign-descriptor.ts';
export {
  type KernelMount,
  type KernelMountOptions,
  keepServerThreads,
  mountKernel,
  resumeKernel,
} from './kernel-mount.ts';
export type { KernelFileSystem } from './main-server.ts';
export type { BackingFileProvider } from './passthrough.ts';
export { type KernelDriverProbe, probeKernelDriver } from './probe.ts';
export type { ThreadData } from './thread-messages.ts';
