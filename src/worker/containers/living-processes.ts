import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ImgcredError, systemErrorCode } from '../../errors/index.ts';
import { containerPaths, readState } from './container-files.ts';
import { CONTROL_VERSION } from './control-protocol.ts';
import { isRunning } from './process-identity.ts';

/**
 * Refuses to be the worker of containers that another build of imgcred supervises in a way which this one does not
 * know. They are left as they are.
 * @throws ImgcredError UNSUPPORTED
 */
export function refuseUnknownSupervisors(directory: string): void {
  for (const container of containerDirectories(directory)) {
    const state = readState(containerPaths(container));
    const version = state?.control ?? CONTROL_VERSION;
    if (state === undefined || version === CONTROL_VERSION || !isRunning(state.supervisor)) continue;
    throw new ImgcredError(
      'UNSUPPORTED',
      `the container in ${container} runs under another version of imgcred, which this one can’t speak to`,
      { hint: 'start that version again, and end its containers before you change versions' },
    );
  }
}

/** The supervisors and first processes that run of the containers in `directory`, by number. */
export function livingProcesses(directory: string): number[] {
  return containerDirectories(directory).flatMap((container) => {
    const state = readState(containerPaths(container));
    if (state === undefined) return [];
    return [state.supervisor, ...(state.process === undefined ? [] : [state.process])]
      .filter(isRunning)
      .map(({ pid }) => pid);
  });
}

function containerDirectories(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => join(directory, name));
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}
