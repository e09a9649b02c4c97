import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { VERSION } from '../config/index.ts';
import { ContentStore, type ImageTrace, unpackTrace } from '../content/index.ts';
import { Secret } from '../credentials/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { duplicateDescriptorOf, forbidCoreDumps } from '../filesystem/index.ts';
import { openImageIndex } from '../index/index.ts';
import { createLogger, type Logger } from '../observability/index.ts';
import type { PinLine, PruneCache, RecordedStart } from '../protocol/index.ts';
import { clientOptionsOf } from '../registry/index.ts';
import { AccessProofs } from './access-proofs.ts';
import { boundedLog } from './bounded-log.ts';
import { cacheEntry, cacheStatus, contentState } from './content-views.ts';
import { chooseDriver } from './driver.ts';
import { HolderWatch } from './holder-watch.ts';
import { LiveMount, type LiveMountContext } from './live-mount.ts';
import {
  type healthSchema,
  type MountRequest,
  type MountServerSettings,
  type MountServerTotals,
  mountServerSettingsSchema,
  type NamedContent,
  type resumeSchema,
} from './messages.ts';
import { pinning } from './pinning.ts';
import { Pins } from './pins.ts';
import { Prefetcher } from './prefetcher.ts';
import { serveRoutes } from './routes.ts';
import { ServedTotals } from './served-totals.ts';
import { Starts } from './starts.ts';
import { Turns } from './turns.ts';

/** Printed on standard output once the socket answers; nothing else ever is. */
export const READY_LINE = 'ready\n';

/**
 * The process that serves mounts: a read that waits for a registry blocks nobody but its reader, and the mounts
 * outlive the worker that asked for them. It speaks HTTP on a Unix socket that its own user alone may open, and
 * ends when it is told to.
 *
 * Nothing here may touch a path below a mount point: this process would wait for itself.
 *
 * @param input the settings, as JSON
 */
export async function runMountServer(input: string): Promise<void> {
  const settings = mountServerSettingsSchema.parse(JSON.parse(input));
  const logger = createLogger({
    level: settings.log_level,
    write: boundedLog(settings.log_file),
  }).with({ role: 'mount-server' });
  // An ordinary user's worker must be able to duplicate the mounts' descriptors, and has no other right to.
  const forbidden = forbidCoreDumps({ traceable: process.geteuid?.() !== 0 });
  if (!forbidden) logger.warn('core dumps could not be forbidden: a crash may write credentials to disk');
  const ended = Promise.withResolvers<void>();
  const server = await MountServer.start(settings, logger, ended.resolve);
  process.stdout.write(READY_LINE);
  // A worker that goes away doesn't end us; a person who wants that says SIGTERM.
  process.on('SIGHUP', () => {});
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => ended.resolve());
  await ended.promise;
  await server.stop();
}

/** The mounts of one process, and what belongs to their content. Its methods are the routes of `routes.ts`. */
export class MountServer {
  readonly #mounts = new Map<string, LiveMount>();
  // Mounts that nobody uses, kept for a while for whoever comes next.
  readonly #lingering = new Map<string, NodeJS.Timeout>();
  readonly #turns = new Turns();
  readonly #totals = new ServedTotals();
  readonly #context: LiveMountContext;
  readonly #settings: MountServerSettings;
  readonly #prefetcher: Prefetcher;
  readonly #starts: Starts;
  readonly #pins: Pins;
  readonly #end: () => void;
  readonly #watch: HolderWatch;
  #ending = false;
  #listener: { stop(force?: boolean): Promise<void> } | undefined;

  private constructor(settings: MountServerSettings, context: LiveMountContext, end: () => void) {
    this.#settings = settings;
    this.#context = context;
    this.#end = end;
    this.#watch = new HolderWatch(() => this.#endIfIdle());
    this.#starts = new Starts(join(settings.state_directory, 'traces'), context.logger);
    this.#prefetcher = new Prefetcher({
      mode: settings.prefetch,
      bytesPerSecond: settings.prefetch_limit,
      logger: context.logger,
    });
    this.#pins = new Pins(join(settings.state_directory, 'pins'), context.store, context.logger);
  }

  /** Opens the store and listens on the settings' socket. `end` is called when it has been told to end. */
  static async start(settings: MountServerSettings, logger: Logger, end: () => void): Promise<MountServer> {
    mkdirSync(settings.state_directory, { recursive: true, mode: 0o700 });
    const store = await ContentStore.open(settings.cache_directory, {
      logger,
      ...(settings.cache_limit === undefined ? {} : { limitBytes: settings.cache_limit }),
    });
    const server = new MountServer(
      settings,
      {
        store,
        registry: clientOptionsOf(settings, logger),
        proofs: new AccessProofs(join(settings.state_directory, 'proofs'), {
          deadlineMs: settings.read_timeout_ms,
        }),
        driver: chooseDriver(settings.fuse_driver).driver,
        readTimeoutMs: settings.read_timeout_ms,
        statePath: (mountId) => join(settings.state_directory, `${mountId}.mount`),
        logger,
      },
      end,
    );
    server.#listener = serveRoutes(server, settings.socket);
    return server;
  }

  /** Ends what is under way, unmounts all, and gives the socket up last: who finds none may start anew. */
  async stop(): Promise<void> {
    this.#watch[Symbol.dispose]();
    this.#ending = true;
    for (const timer of this.#lingering.values()) clearTimeout(timer);
    await this.#turns.idle();
    const unmounting = [...this.#mounts.keys()].map((id) =>
      this.unmount(id).catch((thrown: unknown) => {
        this.#context.logger.error('unmounting failed', { mount_id: id, error: String(thrown) });
      }),
    );
    await Promise.all(unmounting);
    await this.#context.store.close();
    await this.#listener?.stop(true);
    rmSync(this.#settings.socket, { force: true });
  }

  health(): z.infer<typeof healthSchema> {
    return {
      pid: process.pid,
      version: VERSION,
      mounts: Math.max(this.#inUse, this.#turns.busy),
      settings: this.#settings,
      ending: this.#ending,
    };
  }

  /** Ends the server if no mount is in use. @throws ImgcredError CONFLICT while one is */
  shutdown(): void {
    if (this.#inUse > 0 || this.#turns.busy > 0) {
      throw new ImgcredError('CONFLICT', `${this.#inUse} images are mounted`);
    }
    this.#ending = true;
    // After the answer is on its way.
    setTimeout(this.#end, 0);
  }

  list(): LiveMount[] {
    return [...this.#mounts.values()];
  }

  /** @throws ImgcredError NOT_FOUND */
  get(id: string): LiveMount {
    const mount = this.#mounts.get(id);
    if (mount === undefined) throw new ImgcredError('NOT_FOUND', `there is no mount ${id}`);
    return mount;
  }

  /** Mounts, or proves the credential and hands it to the mount that is there. */
  mount({ image_credentials, trace, ...request }: MountRequest): Promise<LiveMount> {
    const credential = secretOf(image_credentials);
    return this.#inTurn(request.mount_id, async () => {
      const known = this.#mounts.get(request.mount_id);
      if (known === undefined) return this.#open(request.mount_id, request, credential, { trace });
      await known.useCredential(credential);
      this.#stopLingering(request.mount_id);
      return known;
    });
  }

  /** Goes on with a dead server's mount, by a duplicate of its descriptor that `holder_pid` has. */
  resume(message: z.infer<typeof resumeSchema>): Promise<LiveMount> {
    const { image_credentials, holder_pid, holder_descriptor, ...request } = message;
    return this.#inTurn(request.mount_id, async () => {
      const known = this.#mounts.get(request.mount_id);
      if (known !== undefined) return known;
      const descriptor = duplicateDescriptorOf(holder_pid, holder_descriptor);
      return this.#open(request.mount_id, request, secretOf(image_credentials), { descriptor });
    });
  }

  /** Gives a mount another credential, once that has been proved. */
  useCredential(id: string, imageCredentials: string | undefined): Promise<void> {
    return this.#turns.take(id, () => this.get(id).useCredential(secretOf(imageCredentials)));
  }

  /** Takes a mount's credential away, and what was proved with it. */
  dropCredential(id: string): Promise<void> {
    return this.#turns.take(id, () => this.get(id).dropCredential());
  }

  /** Notes which process this server works for: without one, and without mounts, it ends. */
  hold(pid: number): void {
    this.#watch.hold(pid);
  }

  #endIfIdle(): boolean {
    if (this.#inUse > 0 || this.#turns.busy > 0) return false;
    this.#context.logger.info('nobody uses this mount server any more: it ends');
    this.#ending = true;
    this.#end();
    return true;
  }

  /** Unmounts; answers what its start touched, as `takeStart`. */
  unmount(id: string): Promise<RecordedStart | undefined> {
    return this.#turns.take(id, () => this.#close(id));
  }

  /**
   * Unmounts after a while, unless somebody mounts it again until then: that one finds all as it was. Answers what its
   * start touched, as `takeStart`.
   */
  linger(id: string, ms: number): Promise<RecordedStart | undefined> {
    return this.#turns.take(id, async () => {
      // Its start is over, and what it touched is worth knowing now.
      await this.#starts.end(this.get(id));
      this.#stopLingering(id);
      this.#lingering.set(
        id,
        setTimeout(() => void this.#endLingering(id), ms),
      );
      return this.takeStart(id);
    });
  }

  /** What a mount's start touched: once that is known, and to the first who asks. */
  takeStart(id: string): RecordedStart | undefined {
    const mount = this.get(id);
    const start = mount.recordedStart;
    mount.recordedStart = undefined;
    return start;
  }

  get #inUse(): number {
    return this.#mounts.size - this.#lingering.size;
  }

  #stopLingering(id: string): void {
    clearTimeout(this.#lingering.get(id));
    this.#lingering.delete(id);
  }

  async #endLingering(id: string): Promise<void> {
    try {
      await this.#turns.take(id, async () => {
        if (this.#lingering.has(id)) await this.#close(id);
      });
    } catch (thrown) {
      this.#context.logger.error('unmounting failed', { mount_id: id, error: String(thrown) });
    }
  }

  async #close(id: string): Promise<RecordedStart | undefined> {
    const mount = this.get(id);
    this.#stopLingering(id);
    await this.#starts.end(mount);
    const start = this.takeStart(id);
    this.#mounts.delete(id);
    await mount.close().finally(() => this.#totals.end(mount));
    rmSync(this.#context.statePath(id), { force: true });
    return start;
  }

  /** Pins the image of a mount, and tells how making it local goes. */
  async *pin(id: string, signal: AbortSignal): AsyncGenerator<PinLine> {
    const mount = this.get(id);
    const { image, workspace_id, index_path } = mount.request;
    await this.#pins.add({
      workspace_id,
      image_id: image.id,
      reference: image.reference,
      index_digest: image.index_digest,
      index_path,
    });
    yield* pinning(mount.content, this.#context.store, signal);
  }

  unpin(workspaceId: string, named: string) {
    return this.#pins.remove(workspaceId, named);
  }

  listPins() {
    return this.#pins.list();
  }

  /** How much of an image is here, mounted or not. */
  async contentState(content: NamedContent) {
    const index = openImageIndex(Bun.mmap(content.index_path));
    return contentState(index, await this.#context.store.localState(index), {
      pinned: this.#pins.has(content),
      trace: await this.#starts.last(content.index_digest),
    });
  }

  /** What all mounts have done since this server was started. */
  totals(): MountServerTotals {
    return this.#totals.sum();
  }

  cacheList() {
    return this.#context.store.list().map(cacheEntry);
  }

  cacheStatus() {
    return cacheStatus(this.#context.store.stat(), this.#pins.list().length);
  }

  async cachePrune(options: PruneCache) {
    await Promise.all([...this.#lingering.keys()].map((id) => this.#endLingering(id)));
    return await this.#context.store.prune({
      ...(options.unused_for_ms === undefined ? {} : { unusedForMs: options.unused_for_ms }),
      ...(options.to_bytes === undefined ? {} : { toBytes: options.to_bytes }),
    });
  }

  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    if (this.#ending) {
      throw new ImgcredError('SERVER_UNREACHABLE', 'the mount server is ending', { hint: 'try again' });
    }
    return this.#turns.take(id, work);
  }

  async #open(
    id: string,
    request: LiveMount['request'],
    credential: Secret<string> | undefined,
    { descriptor, trace }: { readonly descriptor?: number; readonly trace?: string | undefined },
  ): Promise<LiveMount> {
    const earlier = await this.#earlierStarts(request, trace);
    const mount = await LiveMount.open(request, credential, this.#context, descriptor);
    this.#mounts.set(id, mount);
    this.#totals.add(mount);
    // A mount that was taken over is in the middle of its life: it is no start.
    if (descriptor === undefined) this.#starts.begin(mount, earlier);
    else mount.content.traceDone();
    this.#prefetcher.begin(mount, earlier);
    mount.ended?.then(() => this.#forget(id, mount)).catch(() => {});
    return mount;
  }

  /** What came with the request; else what this machine knows itself. */
  async #earlierStarts(request: LiveMount['request'], packed: string | undefined): Promise<ImageTrace> {
    if (packed !== undefined) {
      try {
        return unpackTrace(Buffer.from(packed, 'base64'));
      } catch (thrown) {
        // It is advice: without it the image starts all the same.
        const { mount_id, image } = request;
        const error = toImgcredError(thrown).message;
        this.#context.logger.warn('a trace is passed over', { mount_id, image: image.reference, error });
      }
    }
    return this.#starts.last(request.image.index_digest);
  }

  /** A mount has ended that we did not end: somebody unmounted it by hand, or ended its connection. */
  #forget(id: string, mount: LiveMount): Promise<void> {
    return this.#turns.take(id, async () => {
      if (this.#mounts.get(id) !== mount) return;
      this.#context.logger.warn('a mount was ended from outside', { mount_id: id });
      this.#mounts.delete(id);
      await this.#starts.end(mount);
      await mount.close().finally(() => this.#totals.end(mount));
    });
  }
}

function secretOf(text: string | undefined): Secret<string> | undefined {
  return text === undefined ? undefined : new Secret(text);
}
