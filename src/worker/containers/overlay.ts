import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { mount, SystemCallError } from '../../filesystem/index.ts';
import { ContainerError } from './errors.ts';

export interface OverlayPaths {
  /** Read-only layers, the uppermost first. */
  readonly lower: readonly string[];
  readonly upper: string;
  /** On the same file system as `upper`. */
  readonly work: string;
  readonly merged: string;
}

export interface OverlayFlags {
  /** Keep overlay's own attributes under `user.` instead of `trusted.`: needed in a user name space. */
  readonly userXattr?: boolean;
  /** Never sync the upper layer: it is thrown away with its container. */
  readonly volatile?: boolean;
}

// mount(2) copies at most one page of options and cuts the rest off without a word.
const MAX_OPTION_BYTES = 4095;

/**
 * The options of an overlay mount.
 * @throws ContainerError when they don't fit a page
 * @see Linux `Documentation/filesystems/overlayfs.rst`
 */
export function overlayOptions(paths: OverlayPaths, flags: OverlayFlags = {}): string {
  const options = [
    `lowerdir=${paths.lower.map((path) => escapeOption(path).replaceAll(':', '\\:')).join(':')}`,
    `upperdir=${escapeOption(paths.upper)}`,
    `workdir=${escapeOption(paths.work)}`,
    // The index needs file handles of the lower layer, which a FUSE mount does not give.
    'index=off',
    ...(flags.userXattr === true ? ['userxattr'] : []),
    ...(flags.volatile === true ? ['volatile'] : []),
  ].join(',');
  if (Buffer.byteLength(options) > MAX_OPTION_BYTES) {
    throw new ContainerError('the paths of the root file system are too long to mount', {
      hint: 'choose a data directory with a shorter path',
    });
  }
  return options;
}

/**
 * Mounts an overlay file system. `volatile` is left out again where the kernel does not know it (before 5.10).
 * @throws ContainerError
 */
export function mountOverlay(paths: OverlayPaths, flags: OverlayFlags = {}): void {
  const wanted: OverlayFlags = { volatile: true, ...flags };
  // The kernel marks the work directory of a volatile mount and refuses the next one, since after a power cut
  // the upper layer may be torn. Ours is never used again after one.
  if (wanted.volatile === true)
    rmSync(join(paths.work, 'work', 'incompat'), { recursive: true, force: true });
  for (const attempt of wanted.volatile === true ? [wanted, { ...wanted, volatile: false }] : [wanted]) {
    try {
      mount('overlay', paths.merged, 'overlay', 0n, overlayOptions(paths, attempt));
      return;
    } catch (error) {
      if (attempt.volatile === true && error instanceof SystemCallError && error.errno === 'EINVAL') continue;
      throw new ContainerError(
        `the root file system could not be mounted on ${paths.merged}: ${reason(error)}`,
        {
          cause: error,
          hint: hintFor(error),
        },
      );
    }
  }
}

function reason(error: unknown): string {
  return error instanceof SystemCallError ? error.errno : String(error);
}

function hintFor(error: unknown): string | undefined {
  if (!(error instanceof SystemCallError)) return undefined;
  if (error.errno === 'EINVAL')
    return 'the data directory must be on ext4, xfs, btrfs or tmpfs, not on an overlay or a network file system';
  if (error.errno === 'EPERM') return 'imgcred needs CAP_SYS_ADMIN: run it as root';
  if (error.errno === 'ENODEV') return "the kernel lacks overlayfs: 'modprobe overlay'";
  return undefined;
}

// The kernel splits the options at commas before overlayfs sees them, and takes a backslash for "the next
// character is meant".
function escapeOption(path: string): string {
  return path.replaceAll('\\', '\\\\').replaceAll(',', '\\,');
}
