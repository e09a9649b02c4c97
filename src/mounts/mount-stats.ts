import { type ContentStats, type FallBack, FETCH_CAUSES, type FetchCause } from '../content/index.ts';
import type { MountStats } from './messages.ts';

const CAUSE_NAMES: Readonly<Record<FetchCause, string>> = {
  demand: 'demand',
  readAhead: 'read_ahead',
  trace: 'trace',
  background: 'background',
};

const FALL_BACKS: Readonly<Record<FallBack['reason'], string>> = {
  'range-ignored': 'the registry ignores Range requests',
  'no-random-access': 'the layer has no random access (one zstd frame, or one deflate block)',
  'small-image': 'so little was missing that it was fetched at once',
  'not-kept': 'there was no room to keep it, or no right to write',
};

/**
 * What a mount has fetched, as it is told to others.
 * @param before what it had fetched by the servers before this one
 */
export function mountStats(
  stats: Readonly<ContentStats>,
  waitingReads: number,
  before?: MountStats,
): MountStats {
  const lastFailure =
    stats.lastFailure === undefined
      ? before?.last_failure
      : `${stats.lastFailure.failure}: ${stats.lastFailure.message}`;
  return {
    bytes_fetched: stats.totalBytesFetched + (before?.bytes_fetched ?? 0),
    bytes_fetched_by_cause: sum(byCause(stats.bytesFetched), before?.bytes_fetched_by_cause),
    requests: stats.totalRequests + (before?.requests ?? 0),
    requests_by_cause: sum(byCause(stats.requests), before?.requests_by_cause),
    fallbacks: [...(before?.fallbacks ?? []), ...stats.fallBacks.map(describeFallBack)],
    failures: sum({ ...stats.failures }, before?.failures),
    ...(lastFailure === undefined ? {} : { last_failure: lastFailure }),
    waiting_reads: waitingReads,
    fetch_limit_reached: stats.fetchLimitReached || before?.fetch_limit_reached === true,
  };
}

function byCause(counts: Readonly<Record<FetchCause, number>>): Record<string, number> {
  return Object.fromEntries(FETCH_CAUSES.map((cause) => [CAUSE_NAMES[cause], counts[cause]]));
}

/** Adds counts up by name. */
export function sum(
  counts: Readonly<Record<string, number>>,
  before: Readonly<Record<string, number>> = {},
): Record<string, number> {
  const names = new Set([...Object.keys(before), ...Object.keys(counts)]);
  return Object.fromEntries([...names].map((name) => [name, (counts[name] ?? 0) + (before[name] ?? 0)]));
}

function describeFallBack({ reason, layer, bytes }: Readonly<FallBack>): string {
  return `${reason}${layer === undefined ? '' : ` (${layer})`}: ${FALL_BACKS[reason]}; ${bytes} bytes`;
}
