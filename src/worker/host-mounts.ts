import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { DataLayout } from '../config/index.ts';
import { systemErrorCode, toImgcredError } from '../errors/index.ts';
import { replaceSync } from '../files/index.ts';
import { MOUNT_FLAGS, mount, readMountTable, unmount } from '../filesystem/index.ts';
import type { Logger } from '../observability/index.ts';
import type { LeftUse } from './live-mounts.ts';

// One that a newer version wrote may say more.
const recordSchema = z.object({
  target: z.string(),
  mount_id: z.string(),
  reference: z.string(),
  /** Records of older versions don't say. */
  image_id: z.string().optional(),
});
/** A directory of the host at which an image is mounted. */
export type HostMount = z.infer<typeof recordSchema>;

const REMOUNT = 32n;

/** How a directory of the host is named among the users of a mount; no container has such a name. */
export function hostMountUser(target: string): string {
  return `mount:${target}`;
}

/** Whether images may be mounted at directories of the host though no worker of that data directory runs. */
export function leavesMounts(layout: DataLayout): boolean {
  return existsSync(layout.userMountSocket) || namesIn(layout.hostMounts).length > 0;
}

/**
 * The directories of the host at which images are mounted, on record: the mounts outlive the worker that made them,
 * and the next one must neither take them for leftovers nor forget them.
 */
export class HostMounts {
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #mounts = new Map<string, HostMount>();

  constructor(directory: string, logger: Logger) {
    this.#directory = directory;
    this.#logger = logger;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(directory)) {
      const parsed = recordSchema.safeParse(readJson(join(directory, name)));
      if (parsed.success) this.#mounts.set(parsed.data.target, parsed.data);
      else rmSync(join(directory, name), { force: true });
    }
  }

  get(target: string): HostMount | undefined {
    return this.#mounts.get(target);
  }

  /** The directories at which a mount is. */
  targetsOf(mountId: string): string[] {
    return [...this.#mounts.values()]
      .filter((entry) => entry.mount_id === mountId)
      .map(({ target }) => target);
  }

  /** User → mount, as `LiveMounts.adopt` takes it. */
  users(): [user: string, use: LeftUse][] {
    return [...this.#mounts.values()].map((entry) => [hostMountUser(entry.target), entry]);
  }

  add(entry: HostMount): void {
    replaceSync(this.#path(entry.target), JSON.stringify(entry));
    this.#mounts.set(entry.target, entry);
  }

  remove(target: string): void {
    rmSync(this.#path(target), { force: true });
    this.#mounts.delete(target);
  }

  /** Drops those whose mount is not there any more, with what is left of them in the tree. */
  settle(mounted: ReadonlySet<string>): void {
    for (const { target, mount_id } of [...this.#mounts.values()]) {
      if (!mounted.has(mount_id)) this.lose(target, 'the mount server ended while no worker ran');
    }
  }

  /** Nobody serves this directory any more: reads there would only fail. */
  lose(target: string, reason: string): void {
    this.#logger.warn('a mounted image is gone from its directory', { target, reason });
    this.remove(target);
    const top = readMountTable().findLast((entry) => entry.target === target);
    if (top === undefined || !top.type.startsWith('fuse')) return;
    try {
      unmount(target, { detach: true });
    } catch (thrown) {
      this.#logger.debug('nothing to detach', { target, error: toImgcredError(thrown).message });
    }
  }

  #path(target: string): string {
    const name = new Bun.CryptoHasher('sha256').update(target).digest('hex').slice(0, 24);
    return join(this.#directory, `${name}.json`);
  }
}

/**
 * Shows the mount at `source` at `target` too. Set-user-id bits and device nodes of an image count for nothing in a
 * directory of the host.
 *
 * @throws SystemCallError
 */
export function bindMount(source: string, target: string): void {
  mount(source, target, null, MOUNT_FLAGS.bind, null);
  const { bind, readOnly, noSuid, noDev } = MOUNT_FLAGS;
  try {
    // The flags of a bind mount only count in a second call.
    mount(null, target, null, REMOUNT | bind | readOnly | noSuid | noDev, null);
  } catch (thrown) {
    unmount(target, { detach: true });
    throw thrown;
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (thrown) {
    if (systemErrorCode(thrown) !== 'ENOENT') throw thrown;
    return [];
  }
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}
