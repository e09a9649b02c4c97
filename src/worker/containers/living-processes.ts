import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import { containerPaths, readState } from './container-files.ts';
import { isRunning } from './process-identity.ts';

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
