import { ptr } from 'bun:ffi';
import { accessSync, constants, existsSync } from 'node:fs';
import { release } from 'node:os';
import { findMountHelper } from '../../mount-helper.ts';
import { readUserNamespace } from '../../user-namespace.ts';
import { cString, errno, errnoName, libc, O_CLOEXEC, O_RDWR } from './libc.ts';

/** What `imgcred doctor` says of this driver. */
export interface KernelDriverProbe {
  readonly available: boolean;
  /** As in `uname -r`. */
  readonly kernelVersion: string;
  readonly features: {
    readonly passthrough: boolean;
    readonly resend: boolean;
    readonly readdirplus: boolean;
    /** The largest READ in pages. */
    readonly maxPages: number;
  };
  /** How a mount would be made. */
  readonly mounting: 'mount' | 'fusermount3' | 'none';
  /** Why it is not available, and what to do about it. */
  readonly reason?: string;
}

/**
 * Finds out, without mounting, whether the kernel driver can run here. Features follow from the kernel's
 * version; what really holds is negotiated at each mount.
 */
export function probeKernelDriver(): KernelDriverProbe {
  const kernelVersion = release();
  const { initial, mayMount } = readUserNamespace();
  const mounting = mayMount ? 'mount' : findMountHelper() !== undefined ? 'fusermount3' : 'none';
  const features = {
    passthrough: atLeast(kernelVersion, 6, 9) && mayMount && initial,
    resend: atLeast(kernelVersion, 6, 9),
    readdirplus: true,
    maxPages: 256,
  };
  const reason = lack(kernelVersion, mounting);
  const facts = { available: reason === undefined, kernelVersion, features, mounting } as const;
  return reason === undefined ? facts : { ...facts, reason };
}

function lack(kernelVersion: string, mounting: KernelDriverProbe['mounting']): string | undefined {
  if (process.platform !== 'linux') return 'FUSE by /dev/fuse is a matter of Linux';
  if (!atLeast(kernelVersion, 5, 4)) return `Linux ${kernelVersion} is too old: 5.4 is needed`;
  if (!existsSync('/dev/fuse')) return '/dev/fuse is missing: load the fuse module (modprobe fuse)';
  if (mounting === 'none')
    return 'no right to mount, and fusermount3 is missing: install fuse3, or run as root';
  if (mounting === 'fusermount3')
    return canUse('/dev/fuse') ? undefined : '/dev/fuse is not open to this user: chmod 0666 /dev/fuse';
  const path = cString('/dev/fuse');
  const descriptor = libc.open(ptr(path), O_RDWR | O_CLOEXEC, 0);
  if (descriptor === -1) return `/dev/fuse cannot be opened: ${errnoName(errno())}`;
  libc.close(descriptor);
  return undefined;
}

function canUse(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Whether `version` (`6.18.44-generic`) is `major.minor` or newer. */
export function atLeast(version: string, major: number, minor: number): boolean {
  const [, a = '0', b = '0'] = /^(\d+)\.(\d+)/.exec(version) ?? [];
  return Number(a) > major || (Number(a) === major && Number(b) >= minor);
}
