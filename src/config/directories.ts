import { accessSync, chmodSync, constants, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';

/** Where each thing lies below the data directory. */
export function dataLayout(dataDirectory: string) {
  const at = (...parts: string[]) => join(dataDirectory, ...parts);
  return {
    root: dataDirectory,
    socket: at('imgcred.sock'),
    /** Of a scheduler that is not in the gateway's process. */
    schedulerSocket: at('scheduler.sock'),
    /** Of a worker that is not in the gateway's process: what concerns its machine. */
    workerSocket: at('worker.sock'),
    /** Image indexes by their sha256. */
    indexes: at('indexes'),
    /** One file a layer: what makes registration resumable. */
    layerIndexes: at('layers'),
    logs: at('logs'),
    worker: at('worker'),
    cache: at('worker', 'cache'),
    containers: at('worker', 'containers'),
    mounts: at('worker', 'mounts'),
    /** Programs of seccomp filters, as the runtime has made them. */
    seccompFilters: at('worker', 'seccomp-filters'),
    mountSocket: at('worker', 'mounts.sock'),
    /** Of the server that mounts at an ordinary user's directories, outside of the worker's name space. */
    userMountSocket: at('worker', 'user-mounts.sock'),
    /** Records of the directories of the host at which images are mounted. */
    hostMounts: at('worker', 'host-mounts'),
  } as const;
}
export type DataLayout = ReturnType<typeof dataLayout>;

/**
 * Makes the data directory (0700) and its folders.
 *
 * @throws ImgcredError DATA_DIR where that can't be done
 */
export function prepareDataDirectory(dataDirectory: string): DataLayout {
  const layout = dataLayout(dataDirectory);
  try {
    mkdirSync(layout.root, { recursive: true, mode: 0o700 });
    accessSync(layout.root, constants.R_OK | constants.W_OK | constants.X_OK);
    chmodSync(layout.root, 0o700);
    for (const directory of [
      layout.indexes,
      layout.layerIndexes,
      layout.logs,
      layout.worker,
      layout.cache,
      layout.containers,
      layout.mounts,
    ]) {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
    }
  } catch (cause) {
    const code = systemErrorCode(cause) ?? 'unknown error';
    throw new ImgcredError('DATA_DIR', `the data directory ${dataDirectory} can't be used (${code})`, {
      hint:
        code === 'EACCES' || code === 'EROFS' || code === 'EPERM'
          ? 'name one that you may write to with --data-dir'
          : `check that ${dirname(dataDirectory)} is a directory with free space`,
      cause,
    });
  }
  return layout;
}
