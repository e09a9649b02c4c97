import { type ErrorCode, ImgcredError, type ImgcredErrorOptions, systemErrorCode } from '../errors/index.ts';

/** Why a read failed, in the words that are seen outside the container (docs/outages.md). */
export type ReadFailure = 'auth' | 'missing' | 'unreachable' | 'corrupt' | 'local';

export const READ_FAILURES: readonly ReadFailure[] = ['auth', 'missing', 'unreachable', 'corrupt', 'local'];

/** A read of image content that failed, with its class. */
export class ContentError extends ImgcredError {
  readonly failure: ReadFailure;

  constructor(failure: ReadFailure, code: ErrorCode, message: string, options: ImgcredErrorOptions = {}) {
    super(code, message, options);
    this.failure = failure;
  }
}

const FAILURE_OF_CODE: Partial<Record<ErrorCode, ReadFailure>> = {
  CREDENTIALS_REFUSED: 'auth',
  INVALID_CREDENTIALS: 'auth',
  UNAUTHORIZED: 'auth',
  FORBIDDEN: 'auth',
  NOT_FOUND: 'missing',
  MANIFEST_UNKNOWN: 'missing',
  CORRUPT: 'corrupt',
  REGISTRY_UNREACHABLE: 'unreachable',
  REGISTRY_ERROR: 'unreachable',
  SERVER_UNREACHABLE: 'unreachable',
  DATA_DIR: 'local',
};

// System calls on the cache's own files fail with these; a socket's errors (ECONNRESET…) are not among them.
const LOCAL_SYSTEM_ERRORS = new Set([
  'ENOSPC',
  'EROFS',
  'EIO',
  'EDQUOT',
  'EMFILE',
  'ENFILE',
  'EBADF',
  'EFBIG',
]);

/** The class of a failure. What nobody foresaw counts as `unreachable`: it is tried again until the deadline. */
export function classifyFailure(thrown: unknown): ReadFailure {
  if (thrown instanceof ContentError) return thrown.failure;
  if (thrown instanceof ImgcredError) return FAILURE_OF_CODE[thrown.code] ?? 'unreachable';
  const system = systemErrorCode(thrown);
  return system !== undefined && LOCAL_SYSTEM_ERRORS.has(system) ? 'local' : 'unreachable';
}

const CODE_OF_FAILURE: Record<ReadFailure, ErrorCode> = {
  auth: 'CREDENTIALS_REFUSED',
  missing: 'NOT_FOUND',
  unreachable: 'REGISTRY_UNREACHABLE',
  corrupt: 'CORRUPT',
  local: 'DATA_DIR',
};

const HINT_OF_FAILURE: Record<ReadFailure, string> = {
  auth: "set the image's credentials anew with `imgcred secret set`; running containers and mounts take the new value",
  missing:
    'the registry no longer has this layer: push the image again, or pin images before they are deleted',
  unreachable: 'check the way to the registry; the next read tries again by itself',
  corrupt:
    'the registry sends other bytes than were indexed: a proxy or mirror may alter them; register the image again',
  local: 'check the data directory: free space, permissions, health of the disk',
};

/** Wraps what a read ran into, saying where it happened. A ContentError stays as it is. */
export function toContentError(thrown: unknown, where: string): ContentError {
  if (thrown instanceof ContentError) return thrown;
  const failure = classifyFailure(thrown);
  const known = thrown instanceof ImgcredError ? thrown : undefined;
  const code =
    known !== undefined && FAILURE_OF_CODE[known.code] !== undefined ? known.code : CODE_OF_FAILURE[failure];
  const reason = thrown instanceof Error ? (thrown.message.split('\n')[0] ?? '') : String(thrown);
  return new ContentError(failure, code, `${where}: ${reason}`, {
    hint: known?.hint ?? HINT_OF_FAILURE[failure],
    cause: thrown,
  });
}

/** The error of a caller that went away: no failure of the content, and counted nowhere. */
export function cancelled(signal: AbortSignal | undefined): ImgcredError {
  const reason: unknown = signal?.reason;
  return reason instanceof ImgcredError
    ? reason
    : new ImgcredError('CANCELLED', 'the read was cancelled', { cause: reason });
}
