import { unpackTrace } from '../content/index.ts';
import type { IndexThreads, LayerIndex, LayerSource } from '../index/index.ts';
import type { Digest } from '../reference/index.ts';
import type { Descriptor, Referrers, RegistryClient } from '../registry/index.ts';
import {
  checked,
  entriesOf,
  INDEX_ARTIFACT_TYPE,
  type IndexEntry,
  traceEntryOf,
  unpackToFile,
} from './index-artifact.ts';
import type { TemporaryFiles } from './temporary-files.ts';

/** Indexes of layers that came from a registry. */
export interface ForeignIndexes {
  /** The artifact that they came from. */
  readonly artifact: Digest;
  /** By the layer's digest. */
  readonly layers: ReadonlyMap<Digest, LayerIndex>;
  /** What starts of the image touched elsewhere, packed. */
  readonly trace: Uint8Array<ArrayBuffer> | undefined;
}

export interface SoughtIndex {
  readonly repository: string;
  readonly manifestDigest: Digest;
  readonly referrers: Referrers;
  /** All layers of the image. */
  readonly layers: readonly LayerSource[];
  /** Those whose indexes are needed. */
  readonly missing: readonly LayerSource[];
}

/** What indexes that arrive are unpacked and checked with. */
export interface Unpacking {
  readonly work: IndexThreads;
  /** Where they lie from then on. */
  readonly scratch: TemporaryFiles;
}

/**
 * Looks for an index of the image beside the image itself, and brings what is missing of it. Undefined: there is none.
 *
 * @throws ImgcredError of the last candidate when none is sound; what the registry client throws
 */
export async function findForeignIndexes(
  client: RegistryClient,
  sought: SoughtIndex,
  unpacking: Unpacking,
  signal: AbortSignal,
): Promise<ForeignIndexes | undefined> {
  const { repository, manifestDigest, referrers, layers } = sought;
  return referrers.newest(INDEX_ARTIFACT_TYPE, async (content, artifact) => {
    const entries = entriesOf(content, manifestDigest, layers);
    const needed = new Set(sought.missing.map((layer) => layer.digest));
    const wanted = entries.filter(({ layer }) => needed.has(layer.digest));
    const [found, trace] = await Promise.all([
      Promise.all(wanted.map((entry) => fetchIndex(client, repository, entry, unpacking, signal))),
      fetchTrace(client, repository, traceEntryOf(content), signal),
    ]);
    return { artifact, layers: new Map(found.map((index) => [index.source.digest, index])), trace };
  });
}

/** The trace of an artifact. It is advice: one that can't be had, or read, is as good as none. */
async function fetchTrace(
  client: RegistryClient,
  repository: string,
  entry: Descriptor | undefined,
  signal: AbortSignal,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  if (entry === undefined) return undefined;
  try {
    const packed = new Uint8Array(await client.getBlob(repository, entry, signal));
    unpackTrace(packed);
    return packed;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

async function fetchIndex(
  client: RegistryClient,
  repository: string,
  entry: IndexEntry,
  { work, scratch }: Unpacking,
  signal: AbortSignal,
): Promise<LayerIndex> {
  const path = scratch.next();
  await unpackToFile(client.streamBlob(repository, entry.descriptor, { signal }), path, entry.unpackedSize);
  return checked(entry, await work.open(path, signal));
}
