import { readdirSync, readFileSync } from 'node:fs';
import { cpus, hostname, totalmem } from 'node:os';
import { join } from 'node:path';
import { type Config, type DataLayout, VERSION } from '../config/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import { writeDurablySync } from '../files/index.ts';
import { type HeldContainer, PROTOCOL_VERSION, type WorkerDescription } from '../protocol/index.ts';
import type { ContainerRuntime } from './containers/index.ts';

/** What a worker is called, unless told the host's name. */
export function workerName(config: Config): string {
  return config.worker_name ?? hostname();
}

/** What a worker says of itself. */
export function describeWorker(
  config: Config,
  layout: DataLayout,
  runtime: ContainerRuntime,
  held: HeldContainer[],
): WorkerDescription {
  return {
    name: workerName(config),
    instance: instanceOf(layout.worker),
    protocol: PROTOCOL_VERSION,
    version: VERSION,
    slots: config.slots,
    cpus: cpus().length,
    memory_bytes: totalmem(),
    // By the label `worker` a request can be bound to this one.
    labels: {
      runtime: runtime.name,
      arch: process.arch,
      ...config.worker_labels,
      worker: workerName(config),
    },
    held,
  };
}

/** The name of a worker's data directory, made at its first start. */
function instanceOf(directory: string): string {
  const path = join(directory, 'instance');
  try {
    const known = readFileSync(path, 'utf8').trim();
    if (/^[0-9a-f-]{36}$/.test(known)) return known;
  } catch (thrown) {
    if (systemErrorCode(thrown) !== 'ENOENT') throw thrown;
  }
  const made = crypto.randomUUID();
  writeDurablySync(path, `${made}\n`);
  return made;
}

const MOST_LAYERS = 8192;

/** Digests of the layers that the cache has content of, as their files are named (`content/`). */
export function cachedLayers(cacheDirectory: string): string[] {
  try {
    const names = readdirSync(join(cacheDirectory, 'layers'));
    return [...new Set(names.map(digestOfFile).filter((digest) => digest !== undefined))].slice(
      0,
      MOST_LAYERS,
    );
  } catch {
    return [];
  }
}

function digestOfFile(name: string): string | undefined {
  const [, algorithm, hex] = /^(sha256|sha512)[:-]([0-9a-f]{64,128})\./.exec(name) ?? [];
  return algorithm === undefined || hex === undefined ? undefined : `${algorithm}:${hex}`;
}
