import { stat } from 'node:fs/promises';
import { systemErrorCode } from '../errors/index.ts';
import type { ContainerRequest } from '../protocol/index.ts';
import { ContainerInputError } from './containers/index.ts';

/**
 * Sees to it that what a container's bind mounts name is on this machine, before anything is made for it: the runtime
 * would only tell of it in words of its own.
 *
 * @throws ContainerInputError naming the path and the option
 */
export async function checkBindSources({ overrides }: Pick<ContainerRequest, 'overrides'>): Promise<void> {
  for (const mount of overrides.mounts ?? []) {
    if (mount.type !== 'bind') continue;
    try {
      await stat(mount.source);
    } catch (thrown) {
      const code = systemErrorCode(thrown) ?? 'unknown error';
      const problem = PROBLEMS[code] ?? `can't be looked at (${code})`;
      throw new ContainerInputError(
        `the source ${mount.source} of the mount at ${mount.target} (--mount, --volume) ${problem} on the machine that runs the container`,
        { hint: 'make it there first, or correct the path', cause: thrown },
      );
    }
  }
}

const PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: 'does not exist',
  ENOTDIR: 'does not exist: what stands before its last part is no directory',
  EACCES: 'may not be looked at by the user of imgcred',
  ELOOP: 'is a symbolic link that leads to itself',
};
