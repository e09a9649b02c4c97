import type { Database, WorkspaceId } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { LayerIndex, LayerSource } from '../index/index.ts';
import type { RegisterImage, RegisterProgress } from '../protocol/index.ts';
import { type Digest, formatReference, parseDigest, type Reference } from '../reference/index.ts';
import type { Referrers, RegistryClient, ResolvedImage } from '../registry/index.ts';
import type { AnnotatedLayer } from './foreign-indexes.ts';
import { type ForeignIndexes, findForeignIndexes } from './index-artifact-source.ts';
import type { LayerIndexes } from './layer-indexes.ts';
import { proveOnlySpan, provePossession } from './layer-possession.ts';
import { readLayers } from './layer-reading.ts';
import { type FoundTables, findTables, NO_TABLES } from './layer-tables.ts';
import { type StoredIndex, storeMergedIndex } from './stored-index.ts';
import type { TemporaryFiles } from './temporary-files.ts';

/** Where layers' indexes are kept, and images' are put. */
export interface IndexStores {
  readonly database: Database;
  readonly layers: LayerIndexes;
  /** Where image indexes lie, by sha256. */
  readonly indexDirectory: string;
}

export type IndexMode = NonNullable<RegisterImage['index']>;

/** An image whose index is wanted, and what it may be obtained with. */
export interface WantedIndex {
  readonly workspaceId: WorkspaceId;
  readonly client: RegistryClient;
  readonly reference: Reference;
  readonly resolved: ResolvedImage;
  readonly referrers: Referrers;
  readonly mode: IndexMode;
  readonly onProgress: (line: RegisterProgress) => void;
  /** Told what went otherwise than the user may have thought, a sentence each. */
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
}

/** An image's merged index, and where the indexes of its layers came from. */
export interface ObtainedIndex {
  readonly stored: StoredIndex;
  readonly layers: readonly LayerIndex[];
  readonly artifact: Digest | undefined;
  /** What starts of the image touched elsewhere, where that came with the index. */
  readonly trace?: Uint8Array<ArrayBuffer> | undefined;
}

/** Whether an index that somebody else made may be used. */
export function takesForeign(mode: IndexMode, reference: Reference): boolean {
  // Who writes a digest says which bytes it must be, whoever may push: only the bytes themselves prove that.
  return mode === 'require' || (mode === 'auto' && reference.digest === undefined);
}

/**
 * The index of an image: of layers that are known here, of an index or of tables of contents that the registry has, and
 * of the layers themselves where it must be. docs/registration.md
 *
 * @throws ImgcredError of every kind that the registry or the image gives rise to
 */
export async function obtainIndex(stores: IndexStores, wanted: WantedIndex): Promise<ObtainedIndex> {
  const { client, reference, resolved, mode, onProgress, warn, signal } = wanted;
  const layers = resolved.layers.map(sourceOf);
  const known = await Promise.all(layers.map((layer) => stores.layers.known(layer)));
  await proveKnown(stores.database, wanted, known);
  const missing = layers.filter((_, at) => known[at] === undefined);
  const merged = async (all: readonly LayerIndex[], foreign: boolean) => ({
    stored: await storeMergedIndex(stores.layers.work, stores.indexDirectory, all, foreign),
    layers: all,
  });
  let tables = NO_TABLES;
  if (missing.length > 0 && takesForeign(mode, reference)) {
    onProgress({ kind: 'step', step: 'looking for an index in the registry' });
    let failure: unknown;
    await using scratch = await stores.layers.scratch();
    try {
      const found = await pushedIndex(stores, wanted, missing, scratch);
      if (found !== undefined) {
        const all = layers.map((layer, at) => known[at] ?? found.layers.get(layer.digest) ?? absent(layer));
        return { ...(await merged(all, true)), artifact: found.artifact, trace: found.trace };
      }
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      failure = thrown;
    }
    tables = await tablesOf(stores, wanted, missing, failure);
  }
  const read = (ready: readonly (LayerIndex | undefined)[]): Promise<LayerIndex[]> =>
    readLayers(stores.layers, client, reference.repository, layers, ready, onProgress, signal);
  if (tables.layers.size > 0) {
    const all = await read(layers.map((layer, at) => known[at] ?? tables.layers.get(layer.digest)));
    try {
      return { ...(await merged(all, true)), artifact: tables.artifact };
    } catch (thrown) {
      if (mode === 'require') throw thrown;
      warn(`${reasonOf(thrown)}; the layers are read instead of their tables of contents`);
    }
  }
  const all = await read(known);
  onProgress({ kind: 'step', step: 'merging the layers' });
  return { ...(await merged(all, false)), artifact: undefined };
}

/** Proves layers that were indexed here before, unless an image of this workspace has them already. */
async function proveKnown(
  database: Database,
  { workspaceId, client, reference, signal }: WantedIndex,
  known: readonly (LayerIndex | undefined)[],
): Promise<void> {
  const indexes = new Map(
    known.flatMap((index) => (index === undefined ? [] : [[index.source.digest, index]])),
  );
  if (indexes.size === 0) return;
  const { images } = database.workspace(workspaceId);
  for (const digest of images.layersRead()) indexes.delete(parseDigest(digest));
  await Promise.all(
    [...indexes.values()].map((index) => provePossession(client, reference.repository, index, signal)),
  );
}

/** The index that somebody pushed beside the image. It lies in `scratch`. Undefined: there is none. */
async function pushedIndex(
  stores: IndexStores,
  { client, reference, resolved, referrers, signal }: WantedIndex,
  missing: readonly LayerSource[],
  scratch: TemporaryFiles,
): Promise<ForeignIndexes | undefined> {
  const { repository } = reference;
  const { manifestDigest } = resolved;
  const sought = { repository, manifestDigest, referrers, layers: resolved.layers.map(sourceOf), missing };
  const found = await findForeignIndexes(client, sought, { work: stores.layers.work, scratch }, signal);
  const given = [...(found?.layers.values() ?? [])];
  await Promise.all(given.map((layer) => proveOnlySpan(client, repository, layer, signal)));
  return found;
}

/**
 * Tables of contents of these layers, after the user was told why what is there is not used.
 *
 * @param failure why an index that somebody pushed can't be used
 */
async function tablesOf(
  stores: IndexStores,
  { client, reference, resolved, referrers, mode, warn, signal }: WantedIndex,
  missing: readonly LayerSource[],
  failure: unknown,
): Promise<FoundTables> {
  const { repository } = reference;
  const { manifestDigest } = resolved;
  const { annotations = {} } = resolved.manifest;
  const layers = annotatedLayers(resolved, missing);
  const sought = { repository, manifestDigest, referrers, annotations, layers };
  const tables = await findTables(client, sought, stores.layers.work, signal);
  const complete = missing.every((layer) => tables.layers.has(layer.digest));
  if (mode === 'require' && !complete) throw failure ?? tables.failure ?? noIndex(reference, tables);
  const instead = complete ? 'the layers’ tables of contents are used' : 'the layers are read';
  // A list of referrers that is broken is so for both that are looked for in it.
  const reasons = [failure, tables.failure].filter((reason) => reason !== undefined).map(reasonOf);
  for (const reason of new Set(reasons)) warn(`${reason}; ${instead} instead`);
  for (const why of tables.refused) warn(`${why}; the layer is read instead`);
  return tables;
}

export function sourceOf(layer: ResolvedImage['layers'][number]): LayerSource {
  return {
    digest: layer.descriptor.digest,
    diffId: layer.diffId,
    compression: layer.compression,
    size: layer.descriptor.size,
    mediaType: layer.descriptor.mediaType,
  };
}

function annotatedLayers(resolved: ResolvedImage, sources: readonly LayerSource[]): AnnotatedLayer[] {
  const wanted = new Set(sources.map(({ digest }) => digest));
  return resolved.layers
    .filter(({ descriptor }) => wanted.has(descriptor.digest))
    .map((layer) => ({ source: sourceOf(layer), annotations: layer.descriptor.annotations ?? {} }));
}

function reasonOf(thrown: unknown): string {
  return thrown instanceof ImgcredError ? thrown.message : `it can't be used (${String(thrown)})`;
}

function noIndex(reference: Reference, { refused, without }: FoundTables): ImgcredError {
  const [small] = without;
  const [why = small === undefined ? undefined : `the SOCI index has no table of layer ${small}`] = refused;
  return new ImgcredError(
    'NOT_FOUND',
    why === undefined
      ? `the registry has no index of ${formatReference(reference)}, and the layers are not to be read`
      : `${why}, and the layers are not to be read`,
    { hint: 'push one with `imgcred index push`, or register with --index=auto' },
  );
}

function absent(layer: LayerSource): never {
  throw new ImgcredError('CORRUPT', `the index in the registry lacks the layer ${layer.digest}`);
}
