import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CgroupMode } from './host-facts.ts';

/** What a container uses now. A part is undefined where the host does not count it. */
export interface ContainerStats {
  /** Bytes, page cache included. */
  readonly memoryBytes: number | undefined;
  /** Bytes; undefined for no limit. */
  readonly memoryLimitBytes: number | undefined;
  /** Processor time since the start, milliseconds. */
  readonly cpuMs: number | undefined;
  readonly processes: number | undefined;
}

/** @see Linux `admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`, `cgroup-v1/cpuacct.rst` */
export function readCgroupStats(mode: CgroupMode, path: string, root = '/sys/fs/cgroup'): ContainerStats {
  const file = (controller: string, name: string) =>
    readOptional(mode === 'v2' ? join(root, path, name) : join(root, controller, path, name));
  if (mode === 'v2') {
    const cpu = /^usage_usec ([0-9]+)$/m.exec(file('cpu', 'cpu.stat') ?? '')?.[1];
    return {
      memoryBytes: toNumber(file('memory', 'memory.current')),
      memoryLimitBytes: toLimit(file('memory', 'memory.max')),
      cpuMs: cpu === undefined ? undefined : Number(cpu) / 1000,
      processes: toNumber(file('pids', 'pids.current')),
    };
  }
  const cpu = toNumber(file('cpuacct', 'cpuacct.usage'));
  return {
    memoryBytes: toNumber(file('memory', 'memory.usage_in_bytes')),
    memoryLimitBytes: toLimit(file('memory', 'memory.limit_in_bytes')),
    cpuMs: cpu === undefined ? undefined : cpu / 1_000_000,
    processes: toNumber(file('pids', 'pids.current')),
  };
}

// Version 1 has no word for "no limit": it shows the largest multiple of a page that fits.
const NO_LIMIT = 2 ** 62;

function toLimit(text: string | undefined): number | undefined {
  const limit = toNumber(text);
  return limit === undefined || limit >= NO_LIMIT ? undefined : limit;
}

function toNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]+\s*$/.test(text) ? Number(text) : undefined;
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
