import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { BUILD, VERSION } from '../config/index.ts';
import { ContentStore, type ImageTrace, unpackTrace } from '../content/index.ts';
import { Secret } from '../credentials/index.ts';
import { counted, ImgcredError, toImgcredError } from '../errors/index.ts';
import { duplicateDescriptorOf, keepServerThreads } from '../filesystem/index.ts';
import { openImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { PinLine, PruneCache, RecordedStart } from '../protocol/index.ts';
import { clientOptionsOf } from '../registry/index.ts';
import { AccessProofs } from './access-proofs.ts';
import { cacheEntry, cacheStatus, contentState } from './content-views.ts';
import { chooseDriver } from './driver.ts';
import { HolderWatch } from './holder-watch.ts';
import { Lingering } from './lingering.ts';
import { type EarlierMount, LiveMount, type LiveMountContext } from './live-mount.ts';
import {
  HAND_OVER_VERSION,
  type HandedMount,
  type handedOverSchema,
  type handOverSchema,
  type healthSchema,
  type MountRequest,
  type MountServerSettings,
  type MountServerTotals,
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

/** Why a server is done: it was told to end, or a successor is to go on with its mounts. */
export type ServerEnd =
  | { readonly kind: 'told' }
  | { readonly kind: 'handed-over'; readonly successorPid: number; readonly mounts: readonly HandedMount[] };

/** The mounts of one process, and what belongs to their content. Its methods are the routes of `routes.ts`. */
export class MountServer {
  readonly #mounts = new Map<string, LiveMount>();
  readonly #lingering = new Lingering((id) => void this.#endLingering(id));
  readonly #turns = new Turns();
  readonly #totals = new ServedTotals();
  readonly #context: LiveMountContext;
  readonly #settings: MountServerSettings;
  readonly #prefetcher: Prefetcher;
  readonly #starts: Starts;
  readonly #pins: Pins;
  readonly #ended = Promise.withResolvers<ServerEnd>();
  readonly #watch: HolderWatch;
  readonly #releaseThreads: () => Promise<void>;
  #ending = false;
  #handedOver = false;
  #listener: { stop(force?: boolean): Promise<void> } | undefined;

  private constructor(settings: MountServerSettings, context: LiveMountContext) {
    this.#settings = settings;
    this.#context = context;
    this.#watch = new HolderWatch(() => this.#endIfIdle());
    this.#releaseThreads = context.driver === 'kernel' ? keepServerThreads() : async () => {};
    this.#starts = new Starts(join(settings.state_directory, 'traces'), context.logger);
    this.#prefetcher = new Prefetcher({
      mode: settings.prefetch,
      bytesPerSecond: settings.prefetch_limit,
      logger: context.logger,
    });
    this.#pins = new Pins(join(settings.state_directory, 'pins'), context.store, context.logger);
  }

  /** Opens the store. Nobody can ask it anything before {@link listen}. */
  static async open(settings: MountServerSettings, logger: Logger): Promise<MountServer> {
    mkdirSync(settings.state_directory, { recursive: true, mode: 0o700 });
    const store = await ContentStore.open(settings.cache_directory, {
      logger,
      ...(settings.cache_limit === undefined ? {} : { limitBytes: settings.cache_limit }),
    });
    return new MountServer(settings, {
      store,
      registry: clientOptionsOf(settings, logger),
      proofs: new AccessProofs(join(settings.state_directory, 'proofs'), {
        deadlineMs: settings.read_timeout_ms,
      }),
      driver: chooseDriver(settings.fuse_driver).driver,
      readTimeoutMs: settings.read_timeout_ms,
      // A server for an ordinary user mounts where that user says.
      hiddenMountpoints: settings.ends_with_mounts !== true,
      statePath: (mountId) => join(settings.state_directory, `${mountId}.mount`),
      logger,
    });
  }

  /** Answers on the settings' socket from now on, in the place of whoever did before. */
  listen(): void {
    this.#listener = serveRoutes(this, this.#settings.socket);
  }

  /** Resolves when it has nothing more to do. */
  get ended(): Promise<ServerEnd> {
    return this.#ended.promise;
  }

  /** Ends what is under way, unmounts all, and gives the socket up last: who finds none may start anew. */
  async stop(): Promise<void> {
    this.#watch[Symbol.dispose]();
    this.#ending = true;
    this.#lingering.stop();
    await this.#turns.idle();
    const unmounting = [...this.#mounts.keys()].map((id) =>
      this.unmount(id).catch((thrown: unknown) => {
        this.#context.logger.error('unmounting failed', { mount_id: id, error: String(thrown) });
      }),
    );
    await Promise.all(unmounting);
    await this.#releaseThreads();
    await this.#context.store.close();
    await this.#listener?.stop(true);
    rmSync(this.#settings.socket, { force: true });
  }

  health(): z.infer<typeof healthSchema> {
    return {
      pid: process.pid,
      version: VERSION,
      build: BUILD,
      ...(this.#canHandOver ? { hand_over: HAND_OVER_VERSION } : {}),
      mounts: Math.max(this.#inUse, this.#turns.busy),
      settings: this.#settings,
      ending: this.#ending,
    };
  }

  /** Ends the server if no mount is in use. @throws ImgcredError CONFLICT while one is */
  shutdown(): void {
    if (this.#inUse > 0 || this.#turns.busy > 0) {
      throw new ImgcredError('CONFLICT', `${counted(this.#inUse, 'image is', 'images are')} mounted`);
    }
    this.#ending = true;
    // After the answer is on its way.
    setTimeout(() => this.#ended.resolve({ kind: 'told' }), 0);
  }

  /** @throws ImgcredError SERVER_UNREACHABLE once they are another's */
  list(): LiveMount[] {
    if (this.#handedOver) throw endingError();
    return [...this.#mounts.values()];
  }

  /** @throws ImgcredError NOT_FOUND */
  get(id: string): LiveMount {
    if (this.#handedOver) throw endingError();
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
      known.uses += 1;
      this.#lingering.remove(request.mount_id);
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
      return this.#open(request.mount_id, request, secretOf(image_credentials), { earlier: { descriptor } });
    });
  }

  /** Goes on with a mount that process `holder` has handed over. */
  async goOnWith(handed: HandedMount, holder: number): Promise<void> {
    const { request, image_credentials, stats, start } = handed;
    const earlier = { descriptor: duplicateDescriptorOf(holder, handed.descriptor), stats };
    const mount = await this.#open(request.mount_id, request, secretOf(image_credentials), { earlier });
    mount.recordedStart = start;
  }

  /**
   * Lets go of all mounts: what their readers ask for waits until a successor answers it.
   *
   * @throws ImgcredError UNSUPPORTED while a mount is served by a driver that can't do so
   */
  async handOver({
    successor_pid,
  }: z.infer<typeof handOverSchema>): Promise<z.infer<typeof handedOverSchema>> {
    if (this.#ending) throw endingError();
    if (!this.#canHandOver) {
      throw new ImgcredError('UNSUPPORTED', 'some mounts can’t be handed over');
    }
    this.#ending = true;
    await Promise.all(this.#lingering.ids.map((id) => this.#endLingering(id)));
    await this.#turns.idle();
    const leaving = this.list();
    this.#handedOver = true;
    // Their end is not one that came from outside.
    this.#mounts.clear();
    const outcomes = await Promise.allSettled(
      leaving.map(async (mount) => {
        await this.#starts.end(mount);
        return mount.handOver();
      }),
    );
    const mounts = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    await this.#releaseThreads();
    this.#ended.resolve({ kind: 'handed-over', successorPid: successor_pid, mounts });
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    return { pid: process.pid, mounts };
  }

  /** Gives back what it has but its mounts, which are another's or were let go of. */
  async leave(): Promise<void> {
    this.#watch[Symbol.dispose]();
    await this.#listener?.stop(true);
    await this.#context.store.close();
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
    this.#ended.resolve({ kind: 'told' });
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
      this.#lingering.add(id, ms);
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

  get #canHandOver(): boolean {
    return [...this.#mounts.values()].every((mount) => mount.canBeHandedOver);
  }

  get #inUse(): number {
    return this.#mounts.size - this.#lingering.size;
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
    this.#lingering.remove(id);
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
    await Promise.all(this.#lingering.ids.map((id) => this.#endLingering(id)));
    return await this.#context.store.prune({
      ...(options.unused_for_ms === undefined ? {} : { unusedForMs: options.unused_for_ms }),
      ...(options.to_bytes === undefined ? {} : { toBytes: options.to_bytes }),
    });
  }

  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    if (this.#ending) throw endingError();
    return this.#turns.take(id, work);
  }

  async #open(
    id: string,
    request: LiveMount['request'],
    credential: Secret<string> | undefined,
    { trace, earlier }: { readonly trace?: string | undefined; readonly earlier?: EarlierMount },
  ): Promise<LiveMount> {
    const starts = await this.#earlierStarts(request, trace);
    const mount = await LiveMount.open(request, credential, this.#context, earlier);
    this.#mounts.set(id, mount);
    this.#totals.add(mount);
    // A mount that was taken over is in the middle of its life: it is no start.
    if (earlier === undefined) this.#starts.begin(mount, starts);
    else mount.content.traceDone();
    this.#prefetcher.begin(mount, starts);
    mount.ended
      ?.then(() => this.#forget(id, mount))
      .catch(() => {})
      .finally(() => {
        if (this.#settings.ends_with_mounts && !this.#ending && !this.#watch.held) this.#endIfIdle();
      });
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

function endingError(): ImgcredError {
  return new ImgcredError('SERVER_UNREACHABLE', 'the mount server is ending', { hint: 'try again' });
}

function secretOf(text: string | undefined): Secret<string> | undefined {
  return text === undefined ? undefined : new Secret(text);
}
