export { type CertificateProblem, certificateProblem } from './certificate.ts';
export { counted } from './counted.ts';
export { wordIssue } from './issue-wording.ts';

/**
 * What went wrong, as one word that a program can test. Exit code and HTTP status follow from it alone, so
 * that the same failure looks the same at the terminal and in the API.
 */
export const ERROR_CODES = {
  USAGE: { exit: 2, status: 400 },
  INVALID_INPUT: { exit: 2, status: 400 },
  INVALID_REFERENCE: { exit: 2, status: 400 },
  INVALID_CREDENTIALS: { exit: 3, status: 422 },
  CREDENTIALS_REFUSED: { exit: 4, status: 422 },
  UNAUTHORIZED: { exit: 4, status: 401 },
  /** A worker's channel is not known: it opens another one and asks again. */
  NO_CHANNEL: { exit: 4, status: 401 },
  FORBIDDEN: { exit: 4, status: 403 },
  NOT_FOUND: { exit: 5, status: 404 },
  MANIFEST_UNKNOWN: { exit: 5, status: 404 },
  CONFLICT: { exit: 6, status: 409 },
  QUEUE_FULL: { exit: 6, status: 429 },
  REGISTRY_UNREACHABLE: { exit: 7, status: 502 },
  REGISTRY_ERROR: { exit: 7, status: 502 },
  NOT_AN_IMAGE: { exit: 8, status: 422 },
  UNSUPPORTED: { exit: 8, status: 422 },
  CORRUPT: { exit: 9, status: 502 },
  DATA_DIR: { exit: 10, status: 500 },
  DATA_DIR_LOCKED: { exit: 11, status: 409 },
  DATABASE: { exit: 10, status: 500 },
  MASTER_KEY: { exit: 12, status: 500 },
  PORT_IN_USE: { exit: 13, status: 500 },
  FUSE_UNAVAILABLE: { exit: 14, status: 503 },
  RUNTIME_MISSING: { exit: 15, status: 503 },
  MOUNT_FAILED: { exit: 14, status: 500 },
  FETCH_LIMIT: { exit: 125, status: 500 },
  CONTAINER_FAILED: { exit: 125, status: 500 },
  SERVER_UNREACHABLE: { exit: 16, status: 502 },
  /** Waiting does not help: who runs the client has to trust the certificate, or the server needs another one. */
  CERTIFICATE_REFUSED: { exit: 16, status: 502 },
  NO_WORKER: { exit: 17, status: 503 },
  CANCELLED: { exit: 130, status: 499 },
  INTERNAL: { exit: 1, status: 500 },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface ImgcredErrorOptions {
  /** What the reader can do about it, one line. */
  hint?: string | undefined;
  cause?: unknown;
}

/**
 * The one base of all errors that a user may see. `message` says in one line what failed and for which image,
 * registry or secret; `hint` says what to do next. Neither ever holds a secret.
 */
export class ImgcredError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: ImgcredErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.hint = options.hint;
  }

  /** The process exit code that stands for this error (README, "Exit codes"). */
  get exitCode(): number {
    return ERROR_CODES[this.code].exit;
  }

  /** The HTTP status that stands for this error. */
  get status(): number {
    return ERROR_CODES[this.code].status;
  }

  /** The body that the API answers, and that `--json` prints: never a stack, never a cause. */
  toJSON(): { error: { code: ErrorCode; message: string; hint?: string } } {
    return {
      error: {
        code: this.code,
        message: this.message,
        ...(this.hint === undefined ? {} : { hint: this.hint }),
      },
    };
  }
}

/** Whether `value` is one of our codes: for an error that crossed a process border as JSON. */
export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(ERROR_CODES, value);
}

/**
 * Any thrown thing as an ImgcredError. What we did not foresee becomes `INTERNAL`; its stack stays in `cause`
 * for the debug log.
 */
export function toImgcredError(thrown: unknown): ImgcredError {
  if (thrown instanceof ImgcredError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new ImgcredError('INTERNAL', message.split('\n')[0] ?? 'unknown failure', {
    cause: thrown,
    hint: 'this is a defect of imgcred: run again with --log-level=debug and report what it prints',
  });
}

const SYSTEM_REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or directory',
  ENOTDIR: 'what stands before its last part is no directory',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  ELOOP: 'too many symbolic links',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the disk is full',
};

/** Why a system call failed, in words where its code is a common one. */
export function systemErrorReason(thrown: unknown): string {
  const code = systemErrorCode(thrown) ?? 'unknown error';
  return SYSTEM_REASONS[code] ?? code;
}

/** The `code` of a system call's error (`ENOENT`, `EACCES`…), or undefined where there is none. */
export function systemErrorCode(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}
