import type { MountOptions } from '../../mounted-file-system.ts';

export interface FuseNativeMountOptions extends MountOptions {
  /**
   * Keep set-user-id bits and device nodes working in the mount itself; only root can. On by default for root.
   * An overlay on top has its own say about both and does not need it.
   */
  readonly suidAndDevices?: boolean;
}

// An image never changes: what the kernel has learned of it stays true. A year, since some kernels turn larger
// numbers into jiffies that overflow.
const FOREVER_SECONDS = 31_536_000;

// The kernel lets 12 reads-ahead wait at a time and holds back all others of the mount behind them, also those
// that the store could answer at once. Each that waits is a thread of libfuse's with a 132 KiB buffer.
const MAX_BACKGROUND = 256;

/** The `-o` string for libfuse 2. What an option leaves open is on for root and off for others. */
export function formatMountOptions(options: FuseNativeMountOptions, isRoot: boolean): string {
  const words = [
    'ro',
    'default_permissions',
    'use_ino',
    'kernel_cache',
    `entry_timeout=${FOREVER_SECONDS}`,
    `attr_timeout=${FOREVER_SECONDS}`,
    `negative_timeout=${FOREVER_SECONDS}`,
    `max_background=${MAX_BACKGROUND}`,
    `congestion_threshold=${MAX_BACKGROUND}`,
    'fsname=imgcred',
    'subtype=imgcred',
  ];
  if (options.allowOther ?? isRoot) words.push('allow_other');
  if (options.suidAndDevices ?? isRoot) words.push('suid', 'dev');
  return `-o${words.join(',')}`;
}
