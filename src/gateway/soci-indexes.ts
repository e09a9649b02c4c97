import { ImgcredError } from '../errors/index.ts';
import { fetchZtoc, type IndexThreads, type LayerSource, type ReadBytes } from '../index/index.ts';
import { type Digest, isDigest } from '../reference/index.ts';
import {
  type ArtifactManifest,
  type Descriptor,
  type Referrers,
  type RegistryClient,
  readArtifact,
} from '../registry/index.ts';
import { indexTables, type TableIndexes } from './table-indexes.ts';
import { readWholeBlob } from './whole-blob.ts';

/** A SOCI index that refers to its image: whoever may push to the repository may push one. */
export const SOCI_REFERRER_TYPE = 'application/vnd.amazon.soci.index.v1+json';
/** A SOCI index that the image's manifest names. */
export const SOCI_NAMED_TYPE = 'application/vnd.amazon.soci.index.v2+json';
/** In the image's manifest: the digest of its SOCI index. */
const INDEX_DIGEST = 'com.amazon.soci.index-digest';
/** In the SOCI index: the layer that a table is about. */
const LAYER_DIGEST = 'com.amazon.soci.image-layer-digest';
const ZTOC_TYPE = 'application/octet-stream';

// A ztoc has 32 KiB for every 4 MiB of its layer, and some 200 bytes a file: these are layers of 10 GB.
const LARGEST_ZTOC = 128 * 1024 * 1024;
const LARGEST_INDEX = 512 * 1024 * 1024;
// Each is held as a whole while it is read.
const AT_ONCE = 2;

export interface SoughtSoci {
  readonly repository: string;
  readonly manifestDigest: Digest;
  readonly referrers: Referrers;
  /** Those of the image's manifest. */
  readonly annotations: Readonly<Record<string, string>>;
  /** The layers whose indexes are needed. */
  readonly layers: readonly LayerSource[];
}

/** Indexes of layers that were made of a SOCI index's tables. */
export interface SociIndexes extends TableIndexes {
  /** The SOCI index; undefined: there is none. */
  readonly artifact: Digest | undefined;
  /** Layers that it has no table of: builders leave out what is small. */
  readonly without: readonly Digest[];
}

interface SociIndex {
  readonly artifact: Digest;
  /** By the digest of the layer that each is about. */
  readonly ztocs: ReadonlyMap<string, Descriptor>;
}

/**
 * Makes indexes of the tables (ztocs) that the image's SOCI index has of these layers; see
 * docs/decisions/0012-foreign-tables-of-contents.md. A layer without one, or with one that can't be used, is left out.
 *
 * @throws ImgcredError for a SOCI index that can't be used at all; the signal's reason
 * @see https://github.com/awslabs/soci-snapshotter/blob/v0.16.1/docs/index.md
 */
export async function readSociIndexes(
  client: RegistryClient,
  sought: SoughtSoci,
  work: IndexThreads,
  signal: AbortSignal,
): Promise<SociIndexes> {
  const { repository, layers } = sought;
  const index = await findSociIndex(client, sought, signal);
  const without: Digest[] = [];
  const tables = [...new Map(layers.map((layer) => [layer.digest, layer])).values()].flatMap((source) => {
    const ztoc = index?.ztocs.get(source.digest);
    if (ztoc === undefined) {
      without.push(source.digest);
      return [];
    }
    const bytes = () => readWholeBlob(client, repository, ztoc, signal);
    return [{ source, fetch: async (read: ReadBytes) => fetchZtoc(source, await bytes(), read) }];
  });
  const made = await indexTables(client, repository, tables, { work, atOnce: AT_ONCE }, signal);
  return { ...made, artifact: index?.artifact, without };
}

async function findSociIndex(
  client: RegistryClient,
  { repository, manifestDigest, referrers, annotations, layers }: SoughtSoci,
  signal: AbortSignal,
): Promise<SociIndex | undefined> {
  const named = annotations[INDEX_DIGEST];
  if (named !== undefined) {
    if (!isDigest(named)) throw unusable('the manifest does not say its digest');
    const artifact = await readArtifact(client, repository, named, signal);
    if (artifact.artifactType !== SOCI_NAMED_TYPE) throw unusable('it is of another type');
    return { artifact: named, ztocs: ztocsOf(artifact, layers) };
  }
  return referrers.newest(SOCI_REFERRER_TYPE, (artifact, digest) => {
    if (artifact.artifactType !== SOCI_REFERRER_TYPE) throw unusable('it is of another type');
    if (artifact.subject !== manifestDigest) throw unusable('it is about another image');
    return { artifact: digest, ztocs: ztocsOf(artifact, layers) };
  });
}

/** What is no table (lists of what to fetch first) is passed over, and so is one of a layer that is not asked for. */
function ztocsOf(artifact: ArtifactManifest, layers: readonly LayerSource[]): Map<string, Descriptor> {
  const wanted = new Set<string>(layers.map(({ digest }) => digest));
  const ztocs = new Map<string, Descriptor>();
  let total = 0;
  for (const descriptor of artifact.layers) {
    const layer = descriptor.annotations?.[LAYER_DIGEST] ?? '';
    if (descriptor.mediaType !== ZTOC_TYPE || !wanted.has(layer)) continue;
    const before = ztocs.get(layer);
    // An image that has a layer twice has its table twice.
    if (before?.digest === descriptor.digest) continue;
    if (before !== undefined) throw unusable(`it has two tables of layer ${layer}`);
    total += descriptor.size;
    if (descriptor.size > LARGEST_ZTOC || total > LARGEST_INDEX)
      throw unusable('it is larger than is taken from a registry');
    ztocs.set(layer, descriptor);
  }
  return ztocs;
}

function unusable(why: string): ImgcredError {
  return new ImgcredError('CORRUPT', `the SOCI index in the registry can't be used: ${why}`, {
    hint: 'register with --index=local, or make the SOCI index again',
  });
}
