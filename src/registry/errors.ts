import { type ErrorCode, ImgcredError, type ImgcredErrorOptions } from '../errors/index.ts';

export interface RegistryErrorOptions extends ImgcredErrorOptions {
  /** The host that failed: the registry, its token endpoint or the host that its blobs live on. */
  registry?: string | undefined;
  /** The HTTP status that it answered with, when it did answer. */
  httpStatus?: number | undefined;
  /** The registry's own error code (`MANIFEST_UNKNOWN`, `DENIED`, `TOOMANYREQUESTS`…), when it gave one. */
  registryCode?: string | undefined;
  /** Whether the same request may succeed a little later. */
  transient?: boolean | undefined;
  /** How long the server asked to wait before the next try, in ms. */
  retryAfterMs?: number | undefined;
}

/** Anything that went wrong between us and a registry. */
export class RegistryError extends ImgcredError {
  readonly registry: string | undefined;
  readonly httpStatus: number | undefined;
  readonly registryCode: string | undefined;
  readonly transient: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: RegistryErrorOptions = {}) {
    super(code, message, options);
    this.registry = options.registry;
    this.httpStatus = options.httpStatus;
    this.registryCode = options.registryCode;
    this.transient = options.transient ?? false;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/**
 * Why an access was refused for good.
 * - `anonymous`: no credential was given and the registry wants one.
 * - `unauthorized`: the credential itself is not accepted.
 * - `denied`: the credential is accepted, but may not do this. A fresh login would not change it.
 * - `expired`: the credential was good once; it can't be renewed from here.
 */
export type RefusalReason = 'anonymous' | 'unauthorized' | 'denied' | 'expired';

/** The registry, or its token endpoint, refused the credential. Final: what could be refreshed has been. */
export class AccessRefusedError extends RegistryError {
  readonly reason: RefusalReason;

  constructor(reason: RefusalReason, message: string, options: RegistryErrorOptions = {}) {
    super('CREDENTIALS_REFUSED', message, options);
    this.reason = reason;
  }
}

/** No answer came: name not known, connection refused or broken, TLS failed, or nothing came for too long. */
export class UnreachableError extends RegistryError {
  constructor(message: string, options: RegistryErrorOptions = {}) {
    super('REGISTRY_UNREACHABLE', message, options);
  }
}

/** What came is not what was asked for: digest, size or range differ. */
export class CorruptError extends RegistryError {
  constructor(message: string, options: RegistryErrorOptions = {}) {
    super('CORRUPT', message, options);
  }
}

/** The reference leads to something that is not a container image. */
export class NotAnImageError extends RegistryError {
  constructor(message: string, options: RegistryErrorOptions = {}) {
    super('NOT_AN_IMAGE', message, options);
  }
}

/** The error that stands for a caller's abort: its own reason where that is one of ours. */
export function cancelled(signal: AbortSignal): ImgcredError {
  if (signal.reason instanceof ImgcredError) return signal.reason;
  return new ImgcredError('CANCELLED', 'cancelled', { cause: signal.reason });
}

/** @throws ImgcredError `CANCELLED`, or the signal's own ImgcredError, when `signal` is aborted. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled(signal);
}
