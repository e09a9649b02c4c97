import type { ImgcredError } from '../errors/index.ts';
import type { MountView } from '../mounts/index.ts';
import type { ContainerReport, FetchReport } from '../protocol/index.ts';
import type { ContainerExit } from './containers/index.ts';
import type { RunRecord } from './run-record.ts';

/** The exit code of a run that imgcred itself failed, as podman has it. */
export const OWN_FAILURE = 125;

/** What is told of a container whose process has ended. */
export function exitReport(
  exit: ContainerExit,
  mount: MountView | undefined,
  record: RunRecord,
): ContainerReport {
  const fetch = mount === undefined ? undefined : fetchReport(mount, record);
  const cost = fetch === undefined ? {} : { fetch };
  if (mount?.stats.fetch_limit_reached) {
    const error = {
      code: 'FETCH_LIMIT',
      message: 'the run needed more of its image than --max-fetch allows',
      hint: 'raise --max-fetch, or leave it out',
    };
    return { kind: 'failed', error, exit_code: OWN_FAILURE, ...cost };
  }
  if (exit.reason === 'lost') {
    const message = exit.message ?? 'the container was lost';
    const error = { code: 'CONTAINER_FAILED', message, hint: 'run it again' };
    return { kind: 'failed', error, exit_code: OWN_FAILURE, ...cost };
  }
  const reason =
    exit.reason === 'out-of-memory'
      ? 'out of memory: the kernel killed it for its memory limit'
      : (exit.message ?? (exit.exitCode === 0 ? undefined : unreadable(fetch)));
  return {
    kind: 'exited',
    exit_code: exit.exitCode,
    ...(reason === undefined ? {} : { reason }),
    ...cost,
  };
}

/** What is told of a container that could not be started, or that imgcred had to end. */
export function failureReport(
  error: ImgcredError,
  exitCode: number,
  mount: MountView | undefined,
  record: RunRecord | undefined,
): ContainerReport {
  const fetch = mount === undefined || record === undefined ? undefined : fetchReport(mount, record);
  // A program that can't be read fails to start with no more than EIO.
  const hint = unreadable(fetch) ?? error.hint;
  return {
    kind: 'failed',
    error: { code: error.code, message: error.message, ...(hint === undefined ? {} : { hint }) },
    exit_code: exitCode,
    ...(fetch === undefined ? {} : { fetch }),
  };
}

/** What the image has cost a run: what its mount did since the run began. */
export function fetchReport(mount: MountView, record: RunRecord): FetchReport {
  const { stats } = mount;
  const byCause = since(stats.bytes_fetched_by_cause, record.fetched_before);
  const requests = since(stats.requests_by_cause, record.requests_before);
  const failures = since(stats.failures, record.failures_before);
  const failed = Object.values(failures).some((count) => count > 0);
  return {
    image_compressed_bytes: mount.image_compressed_bytes,
    bytes_fetched: Object.values(byCause).reduce((sum, bytes) => sum + bytes, 0),
    bytes_fetched_by_cause: byCause,
    requests: Object.values(requests).reduce((sum, count) => sum + count, 0),
    requests_by_cause: requests,
    fallbacks: stats.fallbacks.filter((reason) => record.fallbacks_before?.includes(reason) !== true),
    index: record.index,
    failures,
    last_failure: failed ? (stats.last_failure ?? null) : null,
    waiting_reads: stats.waiting_reads,
    driver: mount.driver,
    timings_ms: record.timings_ms,
    warnings: record.warnings ?? [],
  };
}

function unreadable(fetch: FetchReport | undefined): string | undefined {
  const failure = fetch?.last_failure ?? null;
  return failure === null ? undefined : `reads of the image failed: ${failure}`;
}

function since(
  now: Readonly<Record<string, number>>,
  before: Readonly<Record<string, number>>,
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(now).map(([name, count]) => [name, Math.max(0, count - (before[name] ?? 0))]),
  );
}
