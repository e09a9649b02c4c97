import { join } from 'node:path';
import { runningCommand } from '../config/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import type { MountView } from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContainerRequest, WorkerLink } from '../protocol/index.ts';
import { checkBindSources } from './bind-sources.ts';
import { containerOptions, containerSecrets } from './container-options.ts';
import {
  type Attachment,
  adoptContainer,
  type Container,
  type ContainerExit,
  type ContainerRuntime,
  ContainerStartError,
  cleanContainer,
  createContainer,
  NotInImageError,
  type SpareSupervisors,
} from './containers/index.ts';
import { checkImageCredentials } from './image-credentials.ts';
import type { ImageIndexes } from './image-indexes.ts';
import type { LiveMounts } from './live-mounts.ts';
import { pumpLogs } from './log-pump.ts';
import { type RunRecord, removeRunRecord, writeRunRecord } from './run-record.ts';
import { RunReporter } from './run-reporter.ts';
import { exitReport, failureReport, OWN_FAILURE } from './run-reports.ts';

export interface RunContext {
  readonly link: WorkerLink;
  readonly workerId: () => string;
  readonly mounts: LiveMounts;
  readonly indexes: ImageIndexes;
  readonly runtime: ContainerRuntime;
  readonly spares: SpareSupervisors;
  /** How long an image stays mounted after its last container. */
  readonly lingerMs: number;
  /** Where the containers' directories and the runs' records lie. */
  readonly directory: string;
  /** Where the programs of seccomp filters are kept. */
  readonly filters: string;
  readonly logger: Logger;
}

// Whoever asked for the container attaches while it is prepared; one that has gone away must not keep a slot.
const ATTACH_WITHIN_MS = 30_000;

/** One container from the worker taking its request to its last report. */
export class ContainerRun {
  readonly containerId: string;
  readonly attempt: number;
  /** Resolves when there is nothing more to do for it; never rejects. */
  readonly ended: Promise<void>;
  readonly #context: RunContext;
  readonly #logger: Logger;
  readonly #reporter: RunReporter;
  readonly #leaving = new AbortController();
  #container: Container | undefined;
  #mountId: string | undefined;
  #record: RunRecord | undefined;
  #knownSince = Number.POSITIVE_INFINITY;
  readonly #cancelled = Promise.withResolvers<never>();
  readonly #created = Promise.withResolvers<Container>();
  readonly #attached = Promise.withResolvers<void>();
  #before: Promise<void> = Promise.resolve();
  #stop: 'no' | 'stop' | 'kill' = 'no';
  #abandoned = false;
  #started = false;
  #failure: ImgcredError | undefined;

  private constructor(
    containerId: string,
    attempt: number,
    context: RunContext,
    work: (run: ContainerRun) => Promise<void>,
  ) {
    this.containerId = containerId;
    this.attempt = attempt;
    this.#context = context;
    this.#logger = context.logger.with({ container_id: containerId, attempt });
    this.#reporter = new RunReporter(containerId, attempt, context, this.#logger, this.#leaving.signal);
    this.#cancelled.promise.catch(() => {});
    this.#created.promise.catch(() => {});
    this.ended = work(this).catch((thrown: unknown) => {
      this.#logger.error('the run ended badly', { error: toImgcredError(thrown).message });
    });
  }

  /** Begins to run a request. */
  static begin(request: ContainerRequest, context: RunContext): ContainerRun {
    return new ContainerRun(request.container_id, request.attempt, context, (run) => run.#whole(request));
  }

  /**
   * Goes on with a run that an earlier worker began.
   *
   * @param mounted whether its image's mount is there
   */
  static adopt(record: RunRecord, mounted: boolean, context: RunContext): ContainerRun {
    return new ContainerRun(record.container_id, record.attempt, context, (run) =>
      run.#rest(record, mounted),
    );
  }

  /** Since when the scheduler knows of this run, as `performance.now()` tells: what it said earlier may leave it out. */
  get knownSince(): number {
    return this.#knownSince;
  }

  /** The container, once it was made. */
  get container(): Container | undefined {
    return this.#container;
  }

  /**
   * Connects to the container's own process as soon as the container is there, also before its start.
   *
   * @throws ImgcredError of what kept it from being made; CONTAINER_FAILED when it has ended
   */
  async attach(signal?: AbortSignal): Promise<Attachment> {
    const container = await this.#orCancelled(this.#created.promise);
    const attachment = await container.attach(signal);
    this.#attached.resolve();
    return attachment;
  }

  /** Holds this run back until an earlier one of the same container is out of its directory. */
  after(earlier: Promise<void>): void {
    this.#before = earlier;
  }

  /** Ends the container by its stop signal, or by SIGKILL. */
  stop(kill: boolean): void {
    const before = this.#stop;
    if (before === 'kill' || (before === 'stop' && !kill)) return;
    this.#stop = kill ? 'kill' : 'stop';
    this.#cancelled.reject(new CancelledError());
    this.#end(kill);
  }

  /** Ends the container, because something under it is gone. */
  fail(error: ImgcredError): void {
    this.#failure ??= error;
    this.#cancelled.reject(error);
    this.#end(true);
  }

  /** Ends the container without a report: it is another's now. */
  abandon(): void {
    if (this.#abandoned) return;
    this.#logger.warn('the scheduler has given this container up: ending it');
    this.#abandoned = true;
    this.#cancelled.reject(new CancelledError());
    this.#end(true);
  }

  /** Lets the container go on without us; what was not started yet is left to be queued again. */
  leave(): void {
    this.#leaving.abort();
    if (this.#started) return;
    this.#abandoned = true;
    this.#cancelled.reject(new CancelledError());
  }

  async #whole(request: ContainerRequest): Promise<void> {
    const clock = stopwatch();
    const { mounts } = this.#context;
    const since = mounts.now;
    try {
      await this.#before;
      if (!(await this.#reporter.report({ kind: 'preparing' }))) return;
      this.#knownSince = performance.now();
      checkImageCredentials(request, this.#logger);
      await this.#orCancelled(checkBindSources(request));
      const indexPath = await this.#orCancelled(this.#context.indexes.path(request.image.index_digest));
      clock.lap('index');
      const acquired = mounts.acquire(request, indexPath, since);
      const mount = await this.#orCancelled(acquired, async ({ mount_id }) => {
        await mounts.release(mount_id, this.containerId);
      });
      this.#mountId = mount.mount_id;
      clock.lap('mount');
      // What a mount of its own has fetched already, by what is known of earlier starts, it has fetched for this run.
      const before = mount.uses > 1 ? mount.stats : undefined;
      let record: RunRecord = {
        container_id: this.containerId,
        attempt: this.attempt,
        mount_id: mount.mount_id,
        image_id: request.image.id,
        first_log_number: request.first_log_number,
        fetched_before: before?.bytes_fetched_by_cause ?? {},
        requests_before: before?.requests_by_cause ?? {},
        failures_before: before?.failures ?? {},
        fallbacks_before: before?.fallbacks ?? [],
        index: { digest: request.image.index_digest, artifact: request.image.index_artifact ?? null },
        timings_ms: clock.laps,
      };
      this.#record = record;
      this.#checkGoingOn();
      this.#container = await this.#create(request, mount);
      this.#created.resolve(this.#container);
      this.#record = record = { ...record, warnings: [...this.#container.warnings()] };
      for (const warning of record.warnings ?? []) this.#logger.info(warning);
      clock.lap('create');
      this.#checkGoingOn();
      if (request.overrides.start_when_attached === true) {
        await this.#orCancelled(this.#untilAttached());
        clock.lap('attach');
      }
      // The record is there before the scheduler lets the process start: whatever happens then, somebody knows of it.
      writeRunRecord(this.#context.directory, record);
      if (!(await this.#reporter.report({ kind: 'running' }))) throw new CancelledError();
      this.#started = true;
      await this.#container.start();
      clock.lap('start');
      this.#context.spares.replace();
      if (this.#stop !== 'no') this.#end(this.#stop === 'kill');
      await this.#seeThrough(this.#container, record);
    } catch (thrown) {
      await this.#ended(thrown);
    }
  }

  async #rest(record: RunRecord, mounted: boolean): Promise<void> {
    this.#knownSince = performance.now();
    this.#started = true;
    this.#mountId = record.mount_id;
    try {
      const container = adoptContainer(this.#directory);
      this.#container = container;
      this.#created.resolve(container);
      const status = container.status();
      if (status !== 'exited' && !mounted) {
        throw new ImgcredError(
          'MOUNT_FAILED',
          'the worker and the mount server were both killed, and the image’s mount ended with them',
          { hint: 'run it again' },
        );
      }
      if (status === 'created') {
        // Whether the start was asked for is not known; asking the same supervisor again starts nothing twice.
        if (!(await this.#reporter.report({ kind: 'running' }))) throw new CancelledError();
        await container.start();
      }
      await this.#seeThrough(container, record);
    } catch (thrown) {
      await this.#ended(thrown);
    }
  }

  /** From the running process to the report of its end. */
  async #seeThrough(container: Container, record: RunRecord): Promise<void> {
    const leaving = this.#leaving.signal;
    this.#record = record;
    using _ = this.#reporter.watchFetch(record);
    let exit: ContainerExit;
    try {
      const logs = pumpLogs(
        container.readLogs({ follow: true }, leaving),
        record.first_log_number,
        (chunks) =>
          this.#context.link.appendLog(this.#context.workerId(), this.containerId, this.attempt, chunks),
        leaving,
      );
      logs.catch(() => {});
      exit = await container.wait(leaving);
      await logs;
    } catch (thrown) {
      if (leaving.aborted) return;
      throw thrown;
    }
    if (this.#failure !== undefined || this.#abandoned) throw this.#failure ?? new CancelledError();
    await this.#reporter.report(exitReport(exit, await this.#reporter.showMount(record), record));
    await this.#cleanUp();
  }

  async #untilAttached(): Promise<void> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const seconds = ATTACH_WITHIN_MS / 1000;
      late.reject(new ImgcredError('CONTAINER_FAILED', `nobody attached to it within ${seconds} s`));
    }, ATTACH_WITHIN_MS);
    try {
      await Promise.race([this.#attached.promise, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #ended(thrown: unknown): Promise<void> {
    this.#created.reject(thrown);
    if (!this.#abandoned) {
      if (thrown instanceof CancelledError) await this.#reporter.report({ kind: 'cancelled' });
      else {
        const error = this.#failure ?? toImgcredError(thrown);
        this.#logger.info('container failed', { code: error.code, error: error.message });
        if (error.code === 'INTERNAL')
          this.#logger.debug('stack', {
            stack: String(error.cause instanceof Error ? error.cause.stack : error.cause),
          });
        const started = error instanceof ContainerStartError || error instanceof NotInImageError;
        const exitCode = started ? error.exitCode : OWN_FAILURE;
        const record = this.#record;
        const mount = record === undefined ? undefined : await this.#reporter.showMount(record);
        await this.#reporter.report(failureReport(error, exitCode, mount, record));
      }
    }
    await this.#cleanUp();
  }

  async #create(request: ContainerRequest, mount: MountView): Promise<Container> {
    // What a worker that was killed left of an earlier attempt.
    await cleanContainer(this.#directory);
    const { image, options } = containerOptions(request);
    return createContainer({
      id: this.containerId,
      directory: this.#directory,
      lower: [mount.mountpoint],
      image,
      options,
      runtime: this.#context.runtime,
      secrets: containerSecrets(request),
      supervisorCommand: supervisorCommand(),
      spares: this.#context.spares,
      filters: this.#context.filters,
    });
  }

  async #cleanUp(): Promise<void> {
    // The scheduler has heard how it ended, and holds it no longer.
    this.#knownSince = Number.POSITIVE_INFINITY;
    await this.#tidy('the container', () => cleanContainer(this.#directory));
    const mountId = this.#mountId;
    const { mounts, lingerMs } = this.#context;
    if (mountId !== undefined)
      await this.#tidy('the mount', () =>
        this.#reporter.tellStart(mounts.release(mountId, this.containerId, lingerMs)),
      );
    removeRunRecord(this.#context.directory, this.containerId);
  }

  async #tidy(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      this.#logger.warn(`${what} could not be removed`, { error: toImgcredError(thrown).message });
    }
  }

  #end(kill: boolean): void {
    const container = this.#container;
    if (container === undefined) return;
    const ending = kill ? container.kill('SIGKILL') : container.stop({ signal: this.#leaving.signal });
    ending.then(
      () => {},
      (thrown: unknown) => this.#logger.debug('stopping', { error: toImgcredError(thrown).message }),
    );
  }

  /** What `work` gives, unless the run is ended first: then `undo` gets it when it comes. */
  #orCancelled<T>(work: Promise<T>, undo?: (result: T) => Promise<void>): Promise<T> {
    return Promise.race([work, this.#cancelled.promise]).catch((thrown: unknown) => {
      if (undo !== undefined) {
        work.then(undo).catch((failed: unknown) => {
          this.#logger.debug('undone too late', { error: toImgcredError(failed).message });
        });
      }
      throw thrown;
    });
  }

  #checkGoingOn(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#stop !== 'no' || this.#abandoned) throw new CancelledError();
  }

  get #directory(): string {
    return join(this.#context.directory, this.containerId);
  }
}

/** What runs `superviseContainer`. */
export function supervisorCommand(): string[] {
  return [...runningCommand(), 'internal-container-supervisor'];
}

/** The run was ended before its command was started. */
class CancelledError extends ImgcredError {
  constructor() {
    super('CANCELLED', 'the container was stopped before it was started');
  }
}

function stopwatch() {
  const laps: Record<string, number> = {};
  let last = performance.now();
  return {
    laps,
    lap(name: string) {
      const now = performance.now();
      laps[name] = Math.round((now - last) * 10) / 10;
      last = now;
    },
  };
}
