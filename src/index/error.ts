import { type ErrorCode, ImgcredError, type ImgcredErrorOptions } from '../errors/index.ts';

/** A layer or an index that cannot be used; the message names the layer, and the tar entry where there is one. */
export class IndexError extends ImgcredError {
  constructor(code: ErrorCode, message: string, options: ImgcredErrorOptions = {}) {
    super(code, message, options);
  }
}
