import { closeSync } from 'node:fs';
import { join } from 'node:path';
import type { Secret } from '../credentials/index.ts';
import { duplicateDescriptorOf, readMountTable, unmount } from '../filesystem/index.ts';
import {
  type FoundMountServer,
  findOrStartMountServer,
  type MountRequest,
  type MountServerSettings,
  type MountView,
} from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContainerRequest } from '../protocol/index.ts';

interface HeldMount {
  readonly request: Omit<MountRequest, 'image_credentials'>;
  credential: Secret<string> | undefined;
  readonly users: Set<string>;
  /** A duplicate of the server's /dev/fuse descriptor: with it the mount survives its server. */
  descriptor: number | undefined;
}

/** Why a mount could not be kept when its server ended. */
export type OnLost = (containerIds: readonly string[], reason: string) => void;

const WATCH_EVERY_MS = 250;

/**
 * The mounts that this worker's containers use, one for each image of a workspace, and the server process that
 * serves them. When that ends unasked, another one is started and takes the mounts over.
 */
export class LiveMounts {
  readonly #settings: MountServerSettings;
  readonly #logFile: string;
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #onLost: OnLost;
  readonly #held = new Map<string, HeldMount>();
  #server: FoundMountServer;
  #watch: NodeJS.Timeout | undefined;
  #replacing: Promise<void> | undefined;

  private constructor(options: LiveMountsOptions, server: FoundMountServer) {
    this.#settings = options.settings;
    this.#logFile = options.logFile;
    this.#directory = options.directory;
    this.#logger = options.logger;
    this.#onLost = options.onLost;
    this.#server = server;
    this.#watch = setInterval(() => this.#check(), WATCH_EVERY_MS);
    this.#watch.unref();
  }

  static async start(options: LiveMountsOptions): Promise<LiveMounts> {
    const server = await findOrStartMountServer(options.settings, options.logFile);
    const mounts = new LiveMounts(options, server);
    await mounts.#cleanUp();
    return mounts;
  }

  /**
   * Mounts the image of a request, or shares the mount that is there; either way the request's credential has
   * been proved when this returns.
   *
   * @throws ImgcredError of what kept the image from being mounted
   */
  async acquire(request: ContainerRequest, indexPath: string): Promise<MountView> {
    await this.#replacing;
    const { image } = request;
    // A run with a limit of its own counts on its own.
    const mount_id =
      request.max_fetch_bytes === undefined
        ? mountIdOf(request.workspace_id, image.manifest_digest, image.index_digest)
        : request.container_id.toLowerCase();
    const plain: HeldMount['request'] = {
      mount_id,
      mountpoint: join(this.#directory, mount_id),
      index_path: indexPath,
      workspace_id: request.workspace_id,
      image: {
        id: image.id,
        reference: image.reference,
        registry: image.registry,
        repository: image.repository,
        manifest_digest: image.manifest_digest,
        index_digest: image.index_digest,
      },
      ...(request.max_fetch_bytes === undefined ? {} : { max_fetch_bytes: request.max_fetch_bytes }),
    };
    const held = this.#held.get(mount_id) ?? {
      request: plain,
      credential: undefined,
      users: new Set<string>(),
      descriptor: undefined,
    };
    // Registered before the call, so that another container's release can't take the mount away meanwhile.
    this.#held.set(mount_id, held);
    held.users.add(request.container_id);
    try {
      const view = await this.#server.client.mount(withCredential(plain, request.image_credentials));
      held.credential = request.image_credentials;
      this.#hold(held, view);
      return view;
    } catch (thrown) {
      held.users.delete(request.container_id);
      if (held.users.size === 0) this.#held.delete(mount_id);
      throw thrown;
    }
  }

  /** Takes up the use of a mount by a container that an earlier worker started. */
  async adopt(containerId: string, mountId: string): Promise<MountView> {
    const view = await this.#server.client.show(mountId);
    const held = this.#held.get(mountId);
    if (held !== undefined) held.users.add(containerId);
    return view;
  }

  show(mountId: string): Promise<MountView> {
    return this.#server.client.show(mountId);
  }

  /** Ends a container's use of a mount; the last one unmounts it. */
  async release(mountId: string, containerId: string): Promise<void> {
    const held = this.#held.get(mountId);
    held?.users.delete(containerId);
    if (held !== undefined && held.users.size > 0) return;
    this.#held.delete(mountId);
    if (held?.descriptor !== undefined) closeSync(held.descriptor);
    await this.#server.client.unmount(mountId);
  }

  /** Gives the mounts of these images another credential, without a new mount. */
  async useCredential(imageIds: ReadonlySet<string>, credential: Secret<string>): Promise<void> {
    for (const [mountId, held] of this.#held) {
      if (!imageIds.has(held.request.image.id)) continue;
      await this.#server.client.useCredential(mountId, credential.reveal());
      held.credential = credential;
    }
  }

  /** Ends the watch. With `shutdown`, and when nothing is mounted, ends the server too. */
  async stop(shutdown: boolean): Promise<void> {
    clearInterval(this.#watch);
    this.#watch = undefined;
    await this.#replacing;
    for (const held of this.#held.values()) if (held.descriptor !== undefined) closeSync(held.descriptor);
    if (!shutdown || this.#held.size > 0) return;
    const health = await this.#server.client.health();
    if (health?.mounts === 0) await this.#server.client.shutdown();
  }

  #hold(held: HeldMount, view: MountView): void {
    if (view.descriptor === undefined || held.descriptor !== undefined) return;
    try {
      held.descriptor = duplicateDescriptorOf(this.#server.pid, view.descriptor);
    } catch (thrown) {
      this.#logger.warn('the mount will not survive its server', {
        mount_id: view.mount_id,
        error: String(thrown),
      });
    }
  }

  #check(): void {
    if (this.#replacing !== undefined || isAlive(this.#server.pid)) return;
    this.#replacing = this.#replace()
      .catch((thrown: unknown) =>
        this.#logger.error('the mount server could not be replaced', { error: String(thrown) }),
      )
      .finally(() => (this.#replacing = undefined));
  }

  async #replace(): Promise<void> {
    this.#logger.warn('the mount server has ended: starting another', {
      pid: this.#server.pid,
      mounts: this.#held.size,
    });
    this.#server = await findOrStartMountServer(this.#settings, this.#logFile);
    for (const [mountId, held] of [...this.#held]) {
      const users = [...held.users];
      if (held.descriptor === undefined) {
        this.#drop(mountId, users, 'the mount server ended, and this mount can’t outlive it');
        continue;
      }
      try {
        await this.#server.client.resume({
          ...withCredential(held.request, held.credential),
          holder_pid: process.pid,
          holder_descriptor: held.descriptor,
        });
        this.#logger.info('mount taken over', { mount_id: mountId });
      } catch (thrown) {
        closeSync(held.descriptor);
        this.#drop(
          mountId,
          users,
          `the mount server ended, and its successor could not go on: ${String(thrown)}`,
        );
      }
    }
  }

  #drop(mountId: string, users: readonly string[], reason: string): void {
    this.#held.delete(mountId);
    detach(join(this.#directory, mountId), this.#logger);
    this.#onLost(users, reason);
  }

  /** Mounts that no container of ours uses were left by a worker that died between two steps. */
  async #cleanUp(): Promise<void> {
    if (this.#server.adopted) return;
    for (const mountpoint of mountpointsBelow(this.#directory)) {
      this.#logger.warn('removing a mount whose server is gone', { mountpoint });
      detach(mountpoint, this.#logger);
    }
  }
}

export interface LiveMountsOptions {
  readonly settings: MountServerSettings;
  readonly logFile: string;
  /** Where the mount points are made. */
  readonly directory: string;
  readonly logger: Logger;
  readonly onLost: OnLost;
}

function mountIdOf(...parts: readonly string[]): string {
  return new Bun.CryptoHasher('sha256').update(parts.join('\n')).digest('hex').slice(0, 24);
}

function withCredential(request: HeldMount['request'], credential: Secret<string> | undefined): MountRequest {
  return credential === undefined ? request : { ...request, image_credentials: credential.reveal() };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function detach(mountpoint: string, logger: Logger): void {
  try {
    unmount(mountpoint, { detach: true });
  } catch (thrown) {
    logger.debug('nothing to detach', { mountpoint, error: String(thrown) });
  }
}

function mountpointsBelow(directory: string): string[] {
  return readMountTable()
    .map((entry) => entry.target)
    .filter((target) => target.startsWith(`${directory}/`))
    .reverse();
}
