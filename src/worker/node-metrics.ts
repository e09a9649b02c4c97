import type { MountServerTotals } from '../mounts/index.ts';
import { type MetricFamily, samplesOf } from '../observability/index.ts';
import type { CacheStatusView } from '../protocol/index.ts';

/** What a worker's machine did and has. */
export interface NodeFigures {
  readonly mounts: number;
  /** Undefined where the mount server is of an older version, and does not count. */
  readonly totals: MountServerTotals | undefined;
  readonly cache: CacheStatusView;
}

/** A worker's part of the metrics: what its mounts fetched and failed to read, and what its cache holds. */
export function nodeMetrics({ mounts, totals, cache }: NodeFigures): MetricFamily[] {
  return [
    mountServerUp(true),
    {
      name: 'imgcred_fetched_bytes_total',
      type: 'counter',
      help: 'Compressed bytes that mounts have fetched from registries, by cause.',
      samples: samplesOf('cause', totals?.bytes_fetched_by_cause ?? {}),
    },
    {
      name: 'imgcred_registry_requests_total',
      type: 'counter',
      help: 'Requests for content that mounts have made to registries, by cause.',
      samples: samplesOf('cause', totals?.requests_by_cause ?? {}),
    },
    {
      name: 'imgcred_read_failures_total',
      type: 'counter',
      help: 'Reads of image content that failed, by class (docs/outages.md).',
      samples: samplesOf('class', totals?.failures ?? {}),
    },
    {
      name: 'imgcred_waiting_reads',
      type: 'gauge',
      help: 'Reads that wait for a registry now.',
      samples: totals === undefined ? [] : [{ value: totals.waiting_reads }],
    },
    {
      name: 'imgcred_mounts',
      type: 'gauge',
      help: 'Images that are mounted.',
      samples: [{ value: mounts }],
    },
    {
      name: 'imgcred_cache_bytes',
      type: 'gauge',
      help: 'Bytes of the content cache on disk.',
      samples: [{ value: cache.bytes }],
    },
    {
      name: 'imgcred_cache_live_bytes',
      type: 'gauge',
      help: 'Bytes of the content cache that a mount or a pin holds.',
      samples: [{ value: cache.live_bytes }],
    },
    {
      name: 'imgcred_cache_limit_bytes',
      type: 'gauge',
      help: 'Bytes that the content cache may hold.',
      samples: cache.limit_bytes === undefined ? [] : [{ value: cache.limit_bytes }],
    },
    {
      name: 'imgcred_cache_keeping',
      type: 'gauge',
      help: '1 while fetched content is kept; 0 where the disk is full or can not be written.',
      samples: [{ value: cache.not_keeping === undefined ? 1 : 0 }],
    },
  ];
}

/** Whether the mount server answers: without it there are no other figures, and reads wait for its successor. */
export function mountServerUp(up: boolean): MetricFamily {
  return {
    name: 'imgcred_mount_server_up',
    type: 'gauge',
    help: '1 while the process that serves the mounts answers.',
    samples: [{ value: up ? 1 : 0 }],
  };
}
