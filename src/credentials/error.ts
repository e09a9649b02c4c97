import { type ErrorCode, ImgcredError, type ImgcredErrorOptions } from '../errors/index.ts';

/** Credentials that are incomplete or unsuitable, or a login that could not be obtained with them. */
export class CredentialError extends ImgcredError {
  /** The registry that the credentials were given for. */
  readonly registry: string;

  constructor(code: ErrorCode, registry: string, reason: string, options: ImgcredErrorOptions = {}) {
    super(code, `${registry}: ${reason}`, options);
    this.registry = registry;
  }
}
