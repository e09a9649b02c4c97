import { closeSync } from 'node:fs';
import { join } from 'node:path';
import type { Secret } from '../credentials/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { duplicateDescriptorOf } from '../filesystem/index.ts';
import {
  endIfIdle,
  type FoundMountServer,
  findOrStartMountServer,
  type MountClient,
  type MountRequest,
  type MountServerSettings,
  type MountView,
  type PlainMountRequest,
} from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContainerRequest, CredentialUpdate, RecordedStart } from '../protocol/index.ts';
import { identifyProcess } from './containers/index.ts';
import { detach, detachLeftovers } from './leftover-mounts.ts';

interface HeldMount {
  readonly request: PlainMountRequest;
  /** Undefined for a public image. */
  credential: Secret<string> | undefined;
  /** Which version the mount reads with; undefined where that is not known. */
  version: string | undefined;
  readonly users: Set<string>;
  /** Whether the server has ever said that it is there. */
  mounted: boolean;
  /** A duplicate of the server's /dev/fuse descriptor: with it the mount survives its server. */
  descriptor: number | undefined;
}

export interface LiveMountsOptions {
  readonly settings: MountServerSettings;
  readonly logFile: string;
  /** Where the mount points are made. */
  readonly directory: string;
  readonly logger: Logger;
  readonly onLost: OnLost;
  /** Leaves a mount server with mounts as it is: this worker does not stay. */
  readonly keepBusy?: boolean;
}

/** Who uses an image (a container, by its id), and what is needed to mount it. */
export type MountUse = Pick<
  ContainerRequest,
  | 'container_id'
  | 'workspace_id'
  | 'image'
  | 'credential_version'
  | 'image_credentials'
  | 'max_fetch_bytes'
  | 'trace'
>;

/** Why a mount could not be kept when its server ended. */
export type OnLost = (containerIds: readonly string[], reason: string) => void;

const WATCH_EVERY_MS = 100;
const REPLACE_AGAIN_MS = 1_000;
// A call that meets a dying server is made again to its successor; one after the other may die.
const ATTEMPTS = 5;
// Of images without a mount, a push is kept for runs that are about to make one; there are never many.
const MOST_PUSHED = 256;

/**
 * The mounts that this worker's containers use, one for each image of a workspace, and the server process that
 * serves them. When that ends unasked, another one is started and takes the mounts over.
 */
export class LiveMounts {
  readonly #options: LiveMountsOptions;
  readonly #logger: Logger;
  readonly #held = new Map<string, HeldMount>();
  // The server must hear of an end before it hears of the next use.
  readonly #releasing = new Map<string, Promise<void>>();
  // The latest that was pushed for an image, for a run that was given an older one and is on its way to mount.
  readonly #pushed = new Map<string, { readonly update: CredentialUpdate; readonly number: number }>();
  #pushes = 0;
  #server: FoundMountServer;
  #watch: NodeJS.Timeout | undefined;
  #replacing: Promise<void> | undefined;

  private constructor(options: LiveMountsOptions, server: FoundMountServer) {
    this.#options = options;
    this.#logger = options.logger;
    this.#server = server;
    this.#watch = setInterval(() => this.#check(), WATCH_EVERY_MS);
    this.#watch.unref();
  }

  static async start(options: LiveMountsOptions): Promise<LiveMounts> {
    const { settings, logFile, logger, keepBusy = false } = options;
    const server = await findOrStartMountServer(settings, logFile, logger, { keepBusy });
    await server.client.hold(process.pid);
    const mounts = new LiveMounts(options, server);
    if (!server.adopted) mounts.#detachLeftovers();
    return mounts;
  }

  /** A point in time: what is pushed after it is newer than what came with a request before it. */
  get now(): number {
    return this.#pushes;
  }

  /**
   * Mounts the image of a request, or shares the mount that is there; either way the request's credential has
   * been proved when this returns.
   *
   * @param since `now` when the request came
   * @throws ImgcredError of what kept the image from being mounted
   */
  async acquire(request: MountUse, indexPath: string, since: number): Promise<MountView> {
    const plain = this.#requestOf(request, indexPath);
    const { mount_id } = plain;
    const held = this.#held.get(mount_id) ?? {
      request: plain,
      credential: undefined,
      version: undefined,
      users: new Set<string>(),
      mounted: false,
      descriptor: undefined,
    };
    // Registered before the call, so that another container's release can't take the mount away meanwhile.
    this.#held.set(mount_id, held);
    held.users.add(request.container_id);
    try {
      return await this.#mount(held, request, since);
    } catch (thrown) {
      held.users.delete(request.container_id);
      if (held.users.size === 0) this.#forget(mount_id);
      throw thrown;
    }
  }

  /**
   * Takes over the mounts of containers that an earlier worker started, and removes the others.
   *
   * @param users container → mount, as the runs' records say
   */
  async adopt(users: ReadonlyMap<string, string>): Promise<void> {
    const views = new Map((await this.#server.client.list()).map((view) => [view.mount_id, view]));
    for (const [containerId, mountId] of users) {
      const view = views.get(mountId);
      if (view === undefined) continue;
      const held = this.#held.get(mountId) ?? {
        request: view.request,
        credential: undefined,
        version: undefined,
        users: new Set<string>(),
        mounted: true,
        descriptor: undefined,
      };
      held.users.add(containerId);
      this.#held.set(mountId, held);
      this.#hold(held, view);
      // A successor of that server needs it, and the scheduler gives only what containers use.
      held.credential ??= (await this.#server.client.held(mountId)).credential;
    }
    for (const mountId of views.keys()) {
      if (this.#held.has(mountId)) continue;
      this.#logger.info('removing a mount that no container uses', { mount_id: mountId });
      await this.#server.client.unmount(mountId);
    }
    this.#detachLeftovers();
  }

  /** The mounts that containers use. */
  get mounted(): ReadonlySet<string> {
    return new Set(this.#held.keys());
  }

  show(mountId: string): Promise<MountView> {
    return this.#call((client) => client.show(mountId));
  }

  /** What a mount's start touched; undefined where that is not known yet, or was taken before. */
  takeStart(mountId: string): Promise<RecordedStart | undefined> {
    return this.#call((client) => client.takeStart(mountId));
  }

  /** Asks the mount server, or its successor, about things that are no one mount's. */
  ask<T>(work: (client: MountClient) => Promise<T>): Promise<T> {
    return this.#call(work);
  }

  /** Where a mount is, or would be. */
  mountpointOf(mountId: string): string {
    return join(this.#options.directory, mountId);
  }

  /**
   * Ends a container's use of a mount. The last one unmounts it, or lets it stay for `lingerMs` for the next.
   *
   * A mount that stays is the mount server's own affair: it ends it with itself, and when its worker was killed.
   *
   * @returns what the image's start touched, as `takeStart`
   */
  async release(mountId: string, containerId: string, lingerMs = 0): Promise<RecordedStart | undefined> {
    const held = this.#held.get(mountId);
    held?.users.delete(containerId);
    if (held === undefined || held.users.size > 0) return undefined;
    this.#forget(mountId);
    // One with a limit of its own is of no use to anybody else.
    const stays = lingerMs > 0 && held.mounted && held.request.max_fetch_bytes === undefined;
    const released = this.#call((client) =>
      stays ? client.linger(mountId, lingerMs) : client.unmount(mountId),
    );
    const settled = released.then(
      () => {},
      () => {},
    );
    this.#releasing.set(mountId, settled);
    try {
      const start = await released;
      // The watch has another one started in its place.
      if (this.#server.outdated && this.#held.size === 0) await endIfIdle(this.#server.client);
      return start;
    } finally {
      if (this.#releasing.get(mountId) === settled) this.#releasing.delete(mountId);
    }
  }

  /**
   * Gives the mounts of an image another credential, without a new mount; or takes it away.
   *
   * @throws ImgcredError of what kept it from being proved: then the one before stays
   */
  async useCredential(update: CredentialUpdate): Promise<void> {
    this.#pushes += 1;
    this.#pushed.delete(update.image_id);
    this.#pushed.set(update.image_id, { update, number: this.#pushes });
    const [oldest] = this.#pushed.keys();
    if (this.#pushed.size > MOST_PUSHED && oldest !== undefined) this.#pushed.delete(oldest);
    for (const held of [...this.#held.values()]) {
      const { image, workspace_id } = held.request;
      if (image.id !== update.image_id || workspace_id !== update.workspace_id) continue;
      if (held.version !== update.version) await this.#apply(held, update);
    }
  }

  /** Ends the watch. With `shutdown`, and when nothing is mounted, ends the server too. */
  async stop(shutdown: boolean): Promise<void> {
    clearInterval(this.#watch);
    this.#watch = undefined;
    await this.#replacing;
    for (const held of this.#held.values()) if (held.descriptor !== undefined) closeSync(held.descriptor);
    if (!shutdown || this.#held.size > 0) return;
    await endIfIdle(this.#server.client);
  }

  #requestOf(request: MountUse, indexPath: string): HeldMount['request'] {
    const { image, workspace_id, max_fetch_bytes } = request;
    // A run with a limit of its own counts on its own.
    const mount_id =
      max_fetch_bytes === undefined
        ? mountIdOf(workspace_id, image.manifest_digest, image.index_digest)
        : request.container_id.toLowerCase();
    return {
      mount_id,
      mountpoint: this.mountpointOf(mount_id),
      index_path: indexPath,
      workspace_id,
      image: {
        id: image.id,
        reference: image.reference,
        registry: image.registry,
        repository: image.repository,
        manifest_digest: image.manifest_digest,
        index_digest: image.index_digest,
      },
      ...(max_fetch_bytes === undefined ? {} : { max_fetch_bytes }),
    };
  }

  async #mount(held: HeldMount, request: MountUse, since: number): Promise<MountView> {
    const { image_credentials: credential, credential_version: version } = request;
    await this.#releasing.get(held.request.mount_id);
    const message = withCredential(held.request, credential);
    const { trace } = request;
    const view = await this.#call((client) =>
      client.mount(trace === undefined ? message : { ...message, trace }),
    );
    held.credential = credential;
    held.version = version;
    held.mounted = true;
    this.#hold(held, view);
    const newer = this.#pushed.get(request.image.id);
    if (newer !== undefined && newer.number > since && newer.update.version !== version)
      await this.#apply(held, newer.update);
    return view;
  }

  async #apply(held: HeldMount, { version, image_credentials: credential }: CredentialUpdate): Promise<void> {
    const { mount_id, image } = held.request;
    await this.#call((client) =>
      credential === undefined
        ? client.dropCredential(mount_id)
        : client.useCredential(mount_id, credential.reveal()),
    );
    held.credential = credential;
    held.version = version;
    this.#logger.info(credential === undefined ? 'credential taken away' : 'credential replaced', {
      mount_id,
      image: image.reference,
    });
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

  #forget(mountId: string): void {
    const held = this.#held.get(mountId);
    if (held === undefined) return;
    this.#held.delete(mountId);
    this.#pushed.delete(held.request.image.id);
    if (held.descriptor !== undefined) closeSync(held.descriptor);
    held.descriptor = undefined;
  }

  /** Calls the server, and its successor where it ends meanwhile. */
  async #call<T>(work: (client: MountClient) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      await this.#replacing;
      try {
        return await work(this.#server.client);
      } catch (thrown) {
        if (toImgcredError(thrown).code !== 'SERVER_UNREACHABLE' || attempt === ATTEMPTS) throw thrown;
        // It is about to be noticed; its process may take a moment to be gone.
        await Bun.sleep(WATCH_EVERY_MS);
        this.#check();
      }
    }
  }

  #check(): void {
    if (
      this.#replacing !== undefined ||
      this.#watch === undefined ||
      identifyProcess(this.#server.pid) !== undefined
    )
      return;
    this.#replacing = this.#replace().finally(() => (this.#replacing = undefined));
  }

  async #replace(): Promise<void> {
    this.#logger.warn('the mount server has ended: starting another', {
      pid: this.#server.pid,
      mounts: this.#held.size,
    });
    while (this.#watch !== undefined) {
      try {
        const { settings, logFile, keepBusy = false } = this.#options;
        this.#server = await findOrStartMountServer(settings, logFile, this.#logger, { keepBusy });
        await this.#server.client.hold(process.pid);
        break;
      } catch (thrown) {
        this.#logger.error('the mount server could not be replaced', {
          error: toImgcredError(thrown).message,
          again_in_ms: REPLACE_AGAIN_MS,
        });
        await Bun.sleep(REPLACE_AGAIN_MS);
      }
    }
    // Those that only lingered ended with the server; nobody takes them up.
    if (!this.#server.adopted) this.#detachLeftovers();
    for (const [mountId, held] of [...this.#held]) await this.#resume(mountId, held);
  }

  async #resume(mountId: string, held: HeldMount): Promise<void> {
    if (!held.mounted) {
      // It was still being made: whoever asked for it asks the successor.
      detach(held.request.mountpoint, this.#logger);
      return;
    }
    try {
      if (held.descriptor === undefined) {
        throw new ImgcredError('MOUNT_FAILED', 'this mount can’t outlive its server');
      }
      await this.#server.client.resume({
        ...withCredential(held.request, held.credential),
        holder_pid: process.pid,
        holder_descriptor: held.descriptor,
      });
      this.#logger.info('mount taken over', { mount_id: mountId });
    } catch (thrown) {
      const error = toImgcredError(thrown);
      // That one has ended too: its own successor is the next to try.
      if (error.code === 'SERVER_UNREACHABLE') return;
      const users = [...held.users];
      this.#forget(mountId);
      detach(held.request.mountpoint, this.#logger);
      this.#options.onLost(
        users,
        `the mount server ended, and its successor could not go on: ${error.message}`,
      );
    }
  }

  #detachLeftovers(): void {
    const held = new Set([...this.#held.values()].map(({ request }) => request.mountpoint));
    detachLeftovers(this.#options.directory, held, this.#logger);
  }
}

function mountIdOf(...parts: readonly string[]): string {
  return new Bun.CryptoHasher('sha256').update(parts.join('\n')).digest('hex').slice(0, 24);
}

function withCredential(request: HeldMount['request'], credential: Secret<string> | undefined): MountRequest {
  return credential === undefined ? request : { ...request, image_credentials: credential.reveal() };
}
