import { realpath, stat } from 'node:fs/promises';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import { mountedDevice, SystemCallError, unmount } from '../filesystem/index.ts';
import type { MountView } from '../mounts/index.ts';
import type { MetricFamily } from '../observability/index.ts';
import type {
  CacheView,
  ContentState,
  CredentialUpdate,
  ImageRequest,
  MountedImage,
  NamedImage,
  NodeFigures,
  NodeMount,
  NodeServices,
  PinLine,
  PinView,
  PruneCache,
  PrunedCache,
} from '../protocol/index.ts';
import { bindMount, type HostMounts, hostMountUser } from './host-mounts.ts';
import type { ImageIndexes } from './image-indexes.ts';
import type { LiveMounts } from './live-mounts.ts';
import type { LoneNode } from './lone-worker-api.ts';
import { mountServerUp, nodeMetrics } from './node-metrics.ts';
import { type UserMounts, worksForUser } from './user-mounts.ts';

export interface WorkerNodeOptions {
  readonly mounts: LiveMounts;
  readonly hostMounts: HostMounts;
  readonly userMounts: UserMounts;
  readonly indexes: ImageIndexes;
  readonly dataDirectory: string;
  /** Told of a mount that is new here. */
  readonly onMounted: () => void;
}

/** What a worker does for its own machine beside running containers. */
export class WorkerNode implements NodeServices, NodeFigures, LoneNode {
  readonly #mounts: LiveMounts;
  readonly #hostMounts: HostMounts;
  readonly #userMounts: UserMounts;
  readonly #indexes: ImageIndexes;
  readonly #dataDirectory: string;
  readonly #onMounted: () => void;
  // Directories at which something is being mounted or unmounted.
  readonly #changing = new Set<string>();

  constructor(options: WorkerNodeOptions) {
    this.#mounts = options.mounts;
    this.#hostMounts = options.hostMounts;
    this.#userMounts = options.userMounts;
    this.#indexes = options.indexes;
    this.#dataDirectory = options.dataDirectory;
    this.#onMounted = options.onMounted;
  }

  async mountImage(request: ImageRequest, named: string): Promise<NodeMount> {
    const target = await directoryOf(named);
    await this.#keepApart(target);
    return this.#change(target, async () => {
      if (worksForUser()) {
        const indexPath = await this.#indexes.path(request.image.index_digest);
        const view = await this.#userMounts.mount(request, indexPath, target);
        this.#onMounted();
        return nodeMount(view, [target]);
      }
      const there = this.#hostMounts.get(target);
      if (there !== undefined) {
        throw new ImgcredError('CONFLICT', `${there.reference} is mounted at ${target} already`, {
          hint: `imgcred umount ${target}`,
        });
      }
      const user = hostMountUser(target);
      const view = await this.#acquire(user, request);
      try {
        const { id: image_id, reference } = request.image;
        this.#hostMounts.add({ target, mount_id: view.mount_id, reference, image_id });
        bindMount(view.mountpoint, target);
      } catch (thrown) {
        this.#hostMounts.remove(target);
        await this.#mounts.release(view.mount_id, user);
        throw thrown;
      }
      return this.#nodeMount(view);
    });
  }

  async unmountImage(named: string, force: boolean): Promise<void> {
    // A target that is a dead mount can't be looked into: its name as it was given must do.
    const target = await realpath(named).catch(() => named);
    return this.#change(target, async () => {
      const entry = this.#hostMounts.get(target);
      if (entry === undefined) {
        throw new ImgcredError('NOT_FOUND', `no image is mounted at ${target}`, {
          hint: 'see imgcred mount ls',
        });
      }
      const { mount_id } = entry;
      const device = mountedDevice(target);
      if (device !== undefined && device !== mountedDevice(this.#mounts.mountpointOf(mount_id))) {
        throw new ImgcredError('CONFLICT', `something else has been mounted over ${target}`, {
          hint: `umount ${target} first`,
        });
      }
      if (device !== undefined) takeAway(target, force);
      this.#hostMounts.remove(target);
      await this.#mounts.release(mount_id, hostMountUser(target));
    });
  }

  async listMounts(): Promise<NodeMount[]> {
    const views = await this.#mounts.ask((client) => client.list());
    const users = await this.#userMounts.list();
    return [
      ...views.map((view) => this.#nodeMount(view)),
      ...users.map((view) => nodeMount(view, [view.mountpoint])),
    ];
  }

  async metrics(): Promise<MetricFamily[]> {
    try {
      return await this.#mounts.ask(async (client) => {
        const [mounts, totals, { status }] = await Promise.all([
          client.list(),
          client.totals(),
          client.cache(),
        ]);
        return nodeMetrics({ mounts: mounts.length, totals, cache: status });
      });
    } catch (thrown) {
      if (thrown instanceof ImgcredError && thrown.code === 'SERVER_UNREACHABLE')
        return [mountServerUp(false)];
      throw thrown;
    }
  }

  /** The images that are mounted here for no container. */
  async mountedImages(): Promise<MountedImage[]> {
    return [...this.#mounts.images, ...(await this.#userMounts.images())];
  }

  /**
   * Gives all mounts of an image another credential, or takes it away.
   *
   * @throws ImgcredError of what kept it from being proved: then the one before stays
   */
  async useCredential(update: CredentialUpdate): Promise<void> {
    await this.#mounts.useCredential(update);
    await this.#userMounts.useCredential(update);
  }

  async imageState(image: NamedImage): Promise<ContentState> {
    const index_path = await this.#indexes.path(image.index_digest);
    return this.#mounts.ask((client) => client.contentState({ ...image, index_path }));
  }

  async *pin(request: ImageRequest, signal?: AbortSignal): AsyncGenerator<PinLine> {
    const user = `pin:${crypto.randomUUID()}`;
    const { mount_id } = await this.#acquire(user, request);
    try {
      yield* await this.#mounts.ask(async (client) => client.pin(mount_id, signal));
    } finally {
      await this.#mounts.release(mount_id, user);
    }
  }

  async unpin({
    workspace_id,
    named,
  }: {
    readonly workspace_id: string;
    readonly named: string;
  }): Promise<PinView> {
    return pinView(await this.#mounts.ask((client) => client.unpin(workspace_id, named)));
  }

  async knownImages(): Promise<NamedImage[]> {
    const { mounts, pins } = await this.#mounts.ask(async (client) => ({
      mounts: await client.list(),
      pins: await client.pins(),
    }));
    const mounted = mounts.map(({ workspace_id, image_id, request: { image } }) => ({
      workspace_id,
      image_id,
      reference: image.reference,
      index_digest: image.index_digest,
    }));
    const named = ({ workspace_id, image_id, reference, index_digest }: NamedImage): NamedImage => ({
      workspace_id,
      image_id,
      reference,
      index_digest,
    });
    return [...mounted, ...pins.map(named)];
  }

  async listPins(): Promise<PinView[]> {
    return (await this.#mounts.ask((client) => client.pins())).map(pinView);
  }

  cache(): Promise<CacheView> {
    return this.#mounts.ask((client) => client.cache());
  }

  cachePrune(options: PruneCache): Promise<PrunedCache> {
    return this.#mounts.ask((client) => client.prune(options));
  }

  /** Some users of a mount have lost it. */
  lost(users: readonly string[], reason: string): void {
    for (const user of users) {
      const target = user.startsWith('mount:') ? user.slice('mount:'.length) : undefined;
      if (target !== undefined) this.#hostMounts.lose(target, reason);
    }
  }

  async #acquire(user: string, request: ImageRequest): Promise<MountView> {
    const since = this.#mounts.now;
    const indexPath = await this.#indexes.path(request.image.index_digest);
    const view = await this.#mounts.acquire({ ...request, container_id: user }, indexPath, since);
    this.#onMounted();
    return view;
  }

  /** An image over the data directory would hide what serves it, and one in it would be taken for part of it. */
  async #keepApart(target: string): Promise<void> {
    const own = await realpath(this.#dataDirectory);
    if (!isWithin(own, target) && !isWithin(target, own)) return;
    throw new ImgcredError('INVALID_INPUT', `${target} and the data directory ${own} lie one in the other`, {
      hint: 'name a directory apart from it',
    });
  }

  async #change<T>(target: string, work: () => Promise<T>): Promise<T> {
    if (this.#changing.has(target)) {
      throw new ImgcredError('CONFLICT', `${target} is being mounted or unmounted right now`);
    }
    this.#changing.add(target);
    try {
      return await work();
    } finally {
      this.#changing.delete(target);
    }
  }

  #nodeMount(view: MountView): NodeMount {
    return nodeMount(view, this.#hostMounts.targetsOf(view.mount_id));
  }
}

function nodeMount(view: MountView, targets: string[]): NodeMount {
  const { stats } = view;
  return {
    mount_id: view.mount_id,
    targets,
    workspace_id: view.workspace_id,
    image_id: view.image_id,
    reference: view.request.image.reference,
    driver: view.driver,
    image_compressed_bytes: view.image_compressed_bytes,
    bytes_fetched: stats.bytes_fetched,
    bytes_fetched_by_cause: stats.bytes_fetched_by_cause,
    requests: stats.requests,
    fallbacks: stats.fallbacks,
    failures: stats.failures,
    ...(stats.last_failure === undefined ? {} : { last_failure: stats.last_failure }),
    waiting_reads: stats.waiting_reads,
  };
}

function pinView({ workspace_id, image_id, reference, pinned_at }: PinView): PinView {
  return { workspace_id, image_id, reference, pinned_at };
}

async function directoryOf(named: string): Promise<string> {
  try {
    const target = await realpath(named);
    if ((await stat(target)).isDirectory()) return target;
  } catch (cause) {
    throw new ImgcredError('INVALID_INPUT', `${named} can't be mounted on (${systemErrorCode(cause)})`, {
      hint: 'make the directory first',
      cause,
    });
  }
  throw new ImgcredError('INVALID_INPUT', `${named} is not a directory`);
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

function takeAway(target: string, force: boolean): void {
  try {
    unmount(target, { detach: force });
  } catch (thrown) {
    if (!(thrown instanceof SystemCallError) || thrown.errno !== 'EBUSY') throw thrown;
    throw new ImgcredError('CONFLICT', `${target} is in use`, {
      hint: 'leave it and close its files, or take it away for those who come later with --force',
      cause: thrown,
    });
  }
}
