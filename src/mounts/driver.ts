import { existsSync } from 'node:fs';
import { ImgcredError } from '../errors/index.ts';
import { type FuseDriver, type KernelDriverProbe, probeKernelDriver } from '../filesystem/index.ts';

/** The driver that will serve mounts here, and why. */
export interface DriverChoice {
  readonly driver: FuseDriver;
  readonly reason: string;
  readonly probe: KernelDriverProbe;
}

/**
 * Chooses the FUSE driver: the kernel driver where it can run, else fuse-native.
 *
 * @throws ImgcredError FUSE_UNAVAILABLE without /dev/fuse, or where the kernel driver was asked for and can't run
 */
export function chooseDriver(wanted: 'auto' | FuseDriver): DriverChoice {
  const probe = probeKernelDriver();
  // Neither driver goes without it.
  if (!existsSync('/dev/fuse')) {
    throw new ImgcredError('FUSE_UNAVAILABLE', '/dev/fuse is missing: images can’t be mounted', {
      hint: 'load the kernel module (modprobe fuse); in a container, add --device /dev/fuse',
    });
  }
  if (wanted === 'fuse-native') return { driver: wanted, reason: 'asked for', probe };
  if (probe.available)
    return { driver: 'kernel', reason: wanted === 'auto' ? 'it can run here' : 'asked for', probe };
  if (wanted === 'auto')
    return { driver: 'fuse-native', reason: probe.reason ?? 'the kernel driver can’t run here', probe };
  throw new ImgcredError(
    'FUSE_UNAVAILABLE',
    `the kernel driver can't run here: ${probe.reason ?? 'unknown reason'}`,
    {
      hint: 'use --fuse-driver=auto; imgcred doctor tells more',
    },
  );
}
