import { ImgcredError, type ImgcredErrorOptions } from '../errors/index.ts';

/** What keys, secrets and tokens can fail with. */
export class SecretError extends ImgcredError {}

/** The master key is missing, unreadable, or not the one that the data was written with. */
export function masterKeyError(message: string, options: ImgcredErrorOptions = {}): SecretError {
  return new SecretError('MASTER_KEY', message, options);
}

/** Stored bytes are not what was once written. */
export function corrupt(message: string, options: ImgcredErrorOptions = {}): SecretError {
  return new SecretError('CORRUPT', message, {
    hint: 'restore the row from a backup, or set the value again',
    ...options,
  });
}
