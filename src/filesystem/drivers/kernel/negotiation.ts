import { ImgcredError } from '../../../errors/index.ts';
import {
  FUSE_MAJOR,
  FUSE_MINOR,
  FUSE_OLDEST_MINOR,
  INIT_OUT_SIZE,
  InitFlag,
  InitFlag2,
  MAX_READ_SIZE,
  OUT_HEADER_SIZE,
} from './protocol.ts';
import type { Reply } from './replies.ts';

/** What driver and kernel agreed on in INIT. */
export interface Session {
  readonly minor: number;
  readonly flags: number;
  readonly flags2: number;
}

// Not ASYNC_DIO: under it a process that waits in an O_DIRECT read cannot be interrupted.
const WANTED =
  InitFlag.ASYNC_READ |
  InitFlag.EXPORT_SUPPORT |
  InitFlag.DO_READDIRPLUS |
  InitFlag.PARALLEL_DIROPS |
  InitFlag.MAX_PAGES |
  InitFlag.CACHE_SYMLINKS |
  InitFlag.NO_OPENDIR_SUPPORT |
  InitFlag.EXPLICIT_INVAL_DATA |
  InitFlag.INIT_EXT;

const MAX_READAHEAD = 1024 * 1024;
// Reads that wait for the registry count against this number; it must not be used up by a slow layer while
// local files are read, so it is far above the kernel's default of 12.
const MAX_BACKGROUND = 256;
const CONGESTION_THRESHOLD = 192;
// The smallest that the kernel takes: nothing is ever written, and the request buffers stay small.
const MAX_WRITE = 4096;

export function hasPassthrough(session: Session): boolean {
  return (session.flags2 & InitFlag2.PASSTHROUGH) !== 0;
}

export function hasResend(session: Session): boolean {
  return (session.flags2 & InitFlag2.HAS_RESEND) !== 0;
}

/**
 * Builds the answer to INIT.
 *
 * @param wanted whether backing files (they take CAP_SYS_ADMIN) and repeated requests are of use
 * @throws ImgcredError FUSE_UNAVAILABLE for a kernel whose protocol is too old
 */
export function negotiate(
  offered: { major: number; minor: number; maxReadahead: number; flags: number; flags2: number },
  wanted: { readonly passthrough: boolean; readonly resend: boolean },
  reply: Reply,
): Session {
  if (offered.major !== FUSE_MAJOR || offered.minor < FUSE_OLDEST_MINOR) {
    throw new ImgcredError(
      'FUSE_UNAVAILABLE',
      `the kernel speaks FUSE ${offered.major}.${offered.minor}, the kernel driver needs 7.${FUSE_OLDEST_MINOR}`,
      { hint: 'use Linux 5.4 or newer, or --fuse-driver=fuse-native' },
    );
  }
  const flags = offered.flags & WANTED;
  const wanted2 =
    InitFlag2.ALLOW_IDMAP |
    (wanted.resend ? InitFlag2.HAS_RESEND : 0) |
    (wanted.passthrough ? InitFlag2.PASSTHROUGH : 0);
  const flags2 = (flags & InitFlag.INIT_EXT) === 0 ? 0 : offered.flags2 & wanted2;
  const minor = Math.min(FUSE_MINOR, offered.minor);
  const { view, bytes } = reply.memory;
  const at = OUT_HEADER_SIZE;
  bytes.fill(0, at, at + INIT_OUT_SIZE);
  view.setUint32(at, FUSE_MAJOR, true);
  view.setUint32(at + 4, minor, true);
  view.setUint32(at + 8, Math.min(offered.maxReadahead, MAX_READAHEAD), true);
  view.setUint32(at + 12, flags, true);
  view.setUint16(at + 16, MAX_BACKGROUND, true);
  view.setUint16(at + 18, CONGESTION_THRESHOLD, true);
  view.setUint32(at + 20, MAX_WRITE, true);
  view.setUint32(at + 24, 1, true);
  view.setUint16(at + 28, MAX_READ_SIZE / 4096, true);
  view.setUint32(at + 32, flags2, true);
  // One level: the backing file lies on a plain file system, and an overlay still fits on top of the mount.
  view.setUint32(at + 36, (flags2 & InitFlag2.PASSTHROUGH) === 0 ? 0 : 1, true);
  reply.took(INIT_OUT_SIZE);
  reply.finish();
  return { minor, flags, flags2 };
}
