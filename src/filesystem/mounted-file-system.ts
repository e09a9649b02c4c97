import type { Logger } from '../observability/index.ts';

export type FuseDriver = 'fuse-native' | 'kernel';

/** A mount that is being served by this process. */
export interface MountedFileSystem {
  readonly mountpoint: string;
  readonly driver: FuseDriver;
  /** Takes the mount away, also when it is in use, and ends all that served it. */
  unmount(): Promise<void>;
}

/** What every driver's `mount` takes. */
export interface MountOptions {
  /** Whether other users than the one who mounts may look in. Default: true for root. */
  readonly allowOther?: boolean;
  readonly logger?: Logger;
}
