import { readlinkSync } from 'node:fs';
import { type DataLayout, dataLayout } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { MountClient } from '../mounts/index.ts';
import { livingProcesses } from '../worker/index.ts';

/** A process of an earlier worker on the data directory, by which its name spaces can be joined. */
export interface LivingNamespace {
  readonly pid: number;
  /** Whether its mounts are those that a worker has to see: a container's supervisor has its own. */
  readonly seesMounts: boolean;
}

// A mount server answers at once, unless it has been stopped.
const ANSWER_MS = 2_000;

/**
 * Finds what an earlier worker on this data directory left running. Its mounts exist in its name spaces alone, and
 * only from its user name space may its containers be ended.
 */
export async function findLivingNamespace(layout: DataLayout): Promise<LivingNamespace | undefined> {
  const health = new MountClient(layout.mountSocket).health().catch(() => undefined);
  const answer = await Promise.race([health, Bun.sleep(ANSWER_MS).then(() => undefined)]);
  if (answer !== undefined) return { pid: answer.pid, seesMounts: true };
  const [pid] = livingProcesses(layout.containers);
  return pid === undefined ? undefined : { pid, seesMounts: false };
}

/**
 * Refuses to be the worker on a data directory whose containers live in another user name space: none of their
 * mounts can be seen from here, and not all of their processes be ended.
 * @throws ImgcredError DATA_DIR_LOCKED
 */
export async function refuseForeignNamespace(dataDirectory: string): Promise<void> {
  const living = await findLivingNamespace(dataLayout(dataDirectory));
  if (living === undefined || userNamespaceOf(living.pid) === userNamespaceOf('self')) return;
  throw new ImgcredError(
    'DATA_DIR_LOCKED',
    `containers or mounts of ${dataDirectory} live in another user name space (process ${living.pid})`,
    { hint: 'run the command again as the user who started them' },
  );
}

// One that may not be asked is not ours, and so differs.
function userNamespaceOf(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/user`);
  } catch {
    return undefined;
  }
}
