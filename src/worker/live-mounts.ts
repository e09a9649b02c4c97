import { basename, join } from 'node:path';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { duplicateDescriptorOf } from '../filesystem/index.ts';
import {
  endIfIdle,
  type FoundMountServer,
  findOrStartMountServer,
  type MountClient,
  type MountServerSettings,
  type MountView,
} from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContainerRequest, CredentialUpdate, MountedImage, RecordedStart } from '../protocol/index.ts';
import { identifyProcess } from './containers/index.ts';
import { HeldMount, type Opening } from './held-mount.ts';
import { detach, detachLeftovers, leftoversBelow } from './leftover-mounts.ts';
import { mountRequest, plainMountRequest } from './mount-request.ts';

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

/** What an earlier worker wrote down of a user: older ones did not name the image. */
export interface LeftUse {
  readonly mount_id: string;
  readonly image_id?: string | undefined;
}

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
    const held = this.#held.get(mount_id) ?? new HeldMount(plain);
    // Registered before the call, so that another container's release can't take the mount away meanwhile.
    this.#held.set(mount_id, held);
    held.add(request.container_id, request.image.id);
    try {
      return await this.#mount(held, request, since);
    } catch (thrown) {
      if (!held.remove(request.container_id)) this.#forget(mount_id);
      throw thrown;
    }
  }

  /**
   * Takes over the mounts of containers that an earlier worker started, and removes the others.
   *
   * @param users container → its mount, as the runs' records say
   */
  async adopt(users: ReadonlyMap<string, LeftUse>): Promise<void> {
    const views = new Map((await this.#server.client.list()).map((view) => [view.mount_id, view]));
    for (const [containerId, { mount_id: mountId, image_id }] of users) {
      const view = views.get(mountId);
      if (view === undefined) continue;
      const held = this.#held.get(mountId) ?? new HeldMount(view.request, true);
      const imageId = image_id ?? view.request.image.id;
      held.add(containerId, imageId);
      this.#held.set(mountId, held);
      this.#hold(held, view);
      // A successor of that server needs it before the scheduler gives it again.
      const { credential } = held.current.credential ? held.current : await this.#server.client.held(mountId);
      held.opened(imageId, { credential, version: undefined });
    }
    for (const mountId of views.keys()) {
      if (this.#held.has(mountId)) continue;
      this.#logger.info('removing a mount that no container uses', { mount_id: mountId });
      await this.#server.client.unmount(mountId);
    }
    if (this.#server.adopted) this.#endUnlisted();
    else this.#detachLeftovers();
  }

  /**
   * Has the server end what it has mounted and does not list: access to it is still being proved, for a worker that is
   * gone. Taken out of the tree under the server's hands, it would be an empty directory to who asks for it next.
   */
  #endUnlisted(): void {
    for (const mountpoint of leftoversBelow(this.#options.directory, this.#heldMountpoints)) {
      const mountId = basename(mountpoint);
      const ended = this.#server.client
        .unmount(mountId)
        .then(
          () => {},
          () => detach(mountpoint, this.#logger),
        )
        .finally(() => this.#releasing.delete(mountId));
      this.#releasing.set(mountId, ended);
    }
  }

  /** The mounts that containers use. */
  get mounted(): ReadonlySet<string> {
    return new Set(this.#held.keys());
  }

  /** The images that are mounted for no container, with what each is read with. */
  get images(): MountedImage[] {
    return [...this.#held.values()].flatMap((held) =>
      [...held.ownImages].map((image_id) => {
        const version = held.versionOf(image_id);
        return { image_id, ...(version === undefined ? {} : { version }) };
      }),
    );
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
    if (held === undefined) return undefined;
    if (held.remove(containerId)) {
      await this.#improve(held).catch((thrown: unknown) => {
        this.#logger.warn('a mount reads on with the credential of an image that nobody uses any more', {
          mount_id: mountId,
          error: toImgcredError(thrown).message,
        });
      });
      return undefined;
    }
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
      const isOf = held.request.workspace_id === update.workspace_id && held.images.has(update.image_id);
      if (isOf) await this.#apply(held, update);
    }
  }

  /** Ends the watch. With `shutdown`, and when nothing is mounted, ends the server too. */
  async stop(shutdown: boolean): Promise<void> {
    clearInterval(this.#watch);
    this.#watch = undefined;
    await this.#replacing;
    for (const held of this.#held.values()) held.letGo();
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
    return plainMountRequest(request, {
      mount_id,
      mountpoint: this.mountpointOf(mount_id),
      index_path: indexPath,
    });
  }

  async #mount(held: HeldMount, request: MountUse, since: number): Promise<MountView> {
    const { image_credentials: credential, credential_version: version, image, trace } = request;
    await this.#releasing.get(held.request.mount_id);
    const message = mountRequest(held.request, credential, trace);
    const view = await this.#call((client) => client.mount(message));
    held.opened(image.id, { credential, version });
    held.mounted = true;
    this.#hold(held, view);
    const newer = this.#pushed.get(image.id);
    if (newer !== undefined && newer.number > since) await this.#apply(held, newer.update);
    return view;
  }

  async #apply(held: HeldMount, update: CredentialUpdate): Promise<void> {
    const { image_id, version, image_credentials: credential } = update;
    if (credential !== undefined) {
      if (held.versionOf(image_id) === version) return;
      await this.#read(held, { credential, version });
      held.opened(image_id, { credential, version });
      return;
    }
    held.closed(image_id, version);
    try {
      await this.#improve(held);
    } catch (thrown) {
      // It is not read with any longer, by a successor of the server neither, whether or not something is in its place.
      const none = { credential: undefined, version };
      held.reads(none);
      await this.#read(held, none);
      throw thrown;
    }
  }

  /** Has a mount read with what opens it for those who still use it, where that is something else than before. */
  async #improve(held: HeldMount): Promise<void> {
    const { better, current } = held;
    if (better === undefined) return;
    if (better.version === undefined || better.version !== current.version) await this.#read(held, better);
    held.reads(better);
  }

  async #read(held: HeldMount, { credential }: Opening): Promise<void> {
    const { mount_id, image } = held.request;
    await this.#call((client) =>
      credential === undefined
        ? client.dropCredential(mount_id)
        : client.useCredential(mount_id, credential.reveal()),
    );
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
    held.letGo();
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
        ...mountRequest(held.request, held.current.credential),
        holder_pid: process.pid,
        holder_descriptor: held.descriptor,
      });
      this.#logger.info('mount taken over', { mount_id: mountId });
    } catch (thrown) {
      const error = toImgcredError(thrown);
      // That one has ended too: its own successor is the next to try.
      if (error.code === 'SERVER_UNREACHABLE') return;
      const { users } = held;
      this.#forget(mountId);
      detach(held.request.mountpoint, this.#logger);
      this.#options.onLost(
        users,
        `the mount server ended, and its successor could not go on: ${error.message}`,
      );
    }
  }

  #detachLeftovers(): void {
    detachLeftovers(this.#options.directory, this.#heldMountpoints, this.#logger);
  }

  get #heldMountpoints(): ReadonlySet<string> {
    return new Set([...this.#held.values()].map(({ request }) => request.mountpoint));
  }
}

function mountIdOf(...parts: readonly string[]): string {
  return new Bun.CryptoHasher('sha256').update(parts.join('\n')).digest('hex').slice(0, 24);
}
