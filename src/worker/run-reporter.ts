import { toImgcredError } from '../errors/index.ts';
import type { MountView } from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContainerReport, RecordedStart, WorkerLink } from '../protocol/index.ts';
import type { LiveMounts } from './live-mounts.ts';
import type { RunRecord } from './run-record.ts';
import { fetchReport } from './run-reports.ts';

export interface ReporterContext {
  readonly link: WorkerLink;
  readonly workerId: () => string;
  readonly mounts: LiveMounts;
}

const FETCH_REPORT_MS = 2_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 10_000;

/** What one run tells the scheduler: its states until they got through, its costs and findings as they come. */
export class RunReporter {
  readonly #containerId: string;
  readonly #attempt: number;
  readonly #context: ReporterContext;
  readonly #logger: Logger;
  readonly #leaving: AbortSignal;
  #toldFetch: string | undefined;

  /** @param leaving the worker ends and its containers go on: nothing is told twice any more */
  constructor(
    containerId: string,
    attempt: number,
    context: ReporterContext,
    logger: Logger,
    leaving: AbortSignal,
  ) {
    this.#containerId = containerId;
    this.#attempt = attempt;
    this.#context = context;
    this.#logger = logger;
    this.#leaving = leaving;
  }

  /** Tells of a state, as often as it takes. False: the scheduler no longer wants to hear of this run. */
  async report(report: ContainerReport): Promise<boolean> {
    for (let retry = FIRST_RETRY_MS; ; retry = Math.min(retry * 2, LONGEST_RETRY_MS)) {
      try {
        await this.#tell(report);
        return true;
      } catch (thrown) {
        const error = toImgcredError(thrown);
        if (error.code === 'CONFLICT' || this.#leaving.aborted) return false;
        this.#logger.warn('a report did not get through', {
          report: report.kind,
          error: error.message,
          again_in_ms: retry,
        });
        await Bun.sleep(retry);
      }
    }
  }

  /** Tells from time to time what the image costs, until it is disposed; at once where the run has warnings. */
  watchFetch(record: RunRecord): Disposable {
    if ((record.warnings ?? []).length > 0) void this.#tellFetch(record);
    const watch = setInterval(() => void this.#tellFetch(record), FETCH_REPORT_MS);
    return { [Symbol.dispose]: () => clearInterval(watch) };
  }

  /** Tells what the image's start touched, where that became known: to the next machine that starts it. */
  async tellStart(known: Promise<RecordedStart | undefined>): Promise<void> {
    const start = await known;
    if (start === undefined) return;
    try {
      await this.#tell({ kind: 'touched', ...start });
    } catch (thrown) {
      // It is advice, and the next start tells as much.
      this.#logger.debug('a report of a start did not get through', {
        error: toImgcredError(thrown).message,
      });
    }
  }

  /** The mount of the run's image; undefined where it is gone. */
  showMount(record: RunRecord): Promise<MountView | undefined> {
    return this.#context.mounts.show(record.mount_id).catch(() => undefined);
  }

  /** Tells what the image has cost so far, where that has changed: failing reads are seen while they fail. */
  async #tellFetch(record: RunRecord): Promise<void> {
    const mount = await this.showMount(record);
    if (mount === undefined) return;
    if (mount.start_recorded) await this.#takeStart(record);
    const fetch = fetchReport(mount, record);
    const text = JSON.stringify(fetch);
    if (text === this.#toldFetch) return;
    try {
      await this.#tell({ kind: 'fetching', fetch });
      this.#toldFetch = text;
    } catch (thrown) {
      this.#logger.debug('a report of fetching did not get through', {
        error: toImgcredError(thrown).message,
      });
    }
  }

  async #takeStart(record: RunRecord): Promise<void> {
    try {
      await this.tellStart(this.#context.mounts.takeStart(record.mount_id));
    } catch (thrown) {
      this.#logger.warn('the record of its start could not be taken', {
        error: toImgcredError(thrown).message,
      });
    }
  }

  #tell(report: ContainerReport): Promise<void> {
    const { link, workerId } = this.#context;
    return link.report(workerId(), this.#containerId, this.#attempt, report);
  }
}
