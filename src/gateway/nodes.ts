import type { Database, WorkerRow } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { ImageOrder, ImageRequests, NodeServices } from '../protocol/index.ts';
import type { WorkerSessions } from './worker-sessions.ts';

/** A worker of this process, with its machine. */
export interface OwnNode {
  readonly workerId: string;
  readonly node: NodeServices;
}

export interface NodesOptions {
  readonly workers: Database['workers'];
  /** The worker of this process, started where it is not yet; undefined where there will be none. */
  readonly own: () => Promise<OwnNode | undefined>;
  /** Who decrypts the credentials of images for it, where that is in this process too. */
  readonly images: ImageRequests | undefined;
  /** Those of other processes. */
  readonly sessions: WorkerSessions;
  /** The id of the worker that another process runs on this data directory, where one does. */
  readonly beside: () => Promise<string | undefined>;
  /** How long after its last heartbeat a worker counts as living, ms. */
  readonly leaseMs: number;
  readonly now?: () => number;
}

/** The machines of workers, whichever process and machine they are on. */
export class Nodes {
  readonly #options: NodesOptions;

  constructor(options: NodesOptions) {
    this.#options = options;
  }

  /** Whether this process has a worker, which is started where it is not yet. */
  async hasOwn(): Promise<boolean> {
    return (await this.#options.own()) !== undefined;
  }

  /**
   * This machine's worker.
   *
   * @throws ImgcredError UNSUPPORTED where there is none
   */
  async here(): Promise<NodeServices<ImageOrder>> {
    const own = await this.#options.own();
    if (own !== undefined) return this.#ofOwn(own);
    const beside = await this.#beside();
    if (beside !== undefined) return this.#options.sessions.node(beside.id);
    throw new ImgcredError('UNSUPPORTED', 'no worker runs on the server’s own machine', {
      hint: 'say which one is meant with --worker NAME: imgcred worker ls lists them',
    });
  }

  /**
   * The machine of the worker with this name or id.
   *
   * @throws ImgcredError NOT_FOUND; NO_WORKER where it was not heard of for a lease
   */
  async of(named: string): Promise<NodeServices<ImageOrder>> {
    const { workers, sessions } = this.#options;
    const row = workers.get(named);
    // One without a key is, or was, of a server's own process.
    const own = row.identityKey === undefined ? await this.#options.own() : undefined;
    if (own?.workerId === row.id) return this.#ofOwn(own);
    this.#requireLiving(row);
    return sessions.node(row.id);
  }

  /** One whose gateway is another server's is not ours to ask. */
  async #beside(): Promise<WorkerRow | undefined> {
    const { beside, workers } = this.#options;
    const id = await beside();
    return id === undefined ? undefined : workers.find(id);
  }

  #ofOwn({ workerId, node }: OwnNode): NodeServices<ImageOrder> {
    const { images, sessions } = this.#options;
    return images === undefined ? sessions.node(workerId) : withCredentials(node, images);
  }

  #requireLiving({ name, lastHeartbeat }: WorkerRow): void {
    const { now = Date.now, leaseMs } = this.#options;
    if (now() - lastHeartbeat < leaseMs) return;
    const heard = new Date(lastHeartbeat).toISOString();
    throw new ImgcredError('NO_WORKER', `the worker ${name} was last heard of at ${heard}`, {
      hint: 'start it, or see why it does not reach this server',
    });
  }
}

/** A worker's machine that is given images by name, each with its credential decrypted then. */
function withCredentials(node: NodeServices, images: ImageRequests): NodeServices<ImageOrder> {
  return {
    mountImage: async (order, target) => node.mountImage(await images.requestImage(order), target),
    async *pin(order, signal) {
      yield* node.pin(await images.requestImage(order), signal);
    },
    unmountImage: (target, force) => node.unmountImage(target, force),
    listMounts: () => node.listMounts(),
    imageState: (image) => node.imageState(image),
    unpin: (image) => node.unpin(image),
    listPins: () => node.listPins(),
    cache: () => node.cache(),
    cachePrune: (options) => node.cachePrune(options),
  };
}
