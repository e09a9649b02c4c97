import { ImgcredError, type ImgcredErrorOptions } from '../../errors/index.ts';

/** What was asked of a container can't be: nothing was started. */
export class ContainerInputError extends ImgcredError {
  constructor(message: string, options?: ImgcredErrorOptions) {
    super('INVALID_INPUT', message, options);
  }
}

/** A user, group or directory was asked for that the image does not have: 126, as podman has it. */
export class NotInImageError extends ContainerInputError {
  override get exitCode(): number {
    return 126;
  }
}

/** A container that could not be made, started or reached. */
export class ContainerError extends ImgcredError {
  constructor(message: string, options?: ImgcredErrorOptions) {
    super('CONTAINER_FAILED', message, options);
  }
}

/** The container's command never ran. `exitCode` is 125 (own failure), 126 (can't execute) or 127 (not found). */
export class ContainerStartError extends ContainerError {
  readonly #exitCode: number;

  constructor(message: string, exitCode: number, options?: ImgcredErrorOptions) {
    super(message, options);
    this.#exitCode = exitCode;
  }

  override get exitCode(): number {
    return this.#exitCode;
  }
}
