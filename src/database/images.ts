import { counted } from '../errors/index.ts';
import type { Connection } from './connection.ts';
import { conflict, DatabaseError, notFound } from './errors.ts';
import {
  afterPrefix,
  type IdentifierSource,
  type ImageId,
  parseId,
  type SecretId,
  type WorkspaceId,
} from './identifiers.ts';
import { asJsonObject, Columns, type JsonObject, type Row } from './rows.ts';

export const LAYER_COMPRESSIONS = ['gzip', 'zstd', 'none'] as const;

export interface StoredLayer {
  readonly digest: string;
  readonly diffId: string;
  readonly mediaType: string;
  /** Compressed bytes. */
  readonly size: number;
  readonly compression: (typeof LAYER_COMPRESSIONS)[number];
}

/** What registration finds out about an image. */
export interface NewImage {
  /** As the user wrote it, normalised; with the platform it identifies the image within its workspace. */
  readonly reference: string;
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | undefined;
  /** `os/architecture[/variant]` */
  readonly platform: string;
  readonly manifestDigest: string;
  readonly indexDigest: string;
  /** The image's own configuration (OCI image-spec, config.md). */
  readonly config: JsonObject;
  readonly layers: readonly StoredLayer[];
  readonly compressedBytes: number;
  readonly uncompressedBytes: number;
  readonly indexBytes: number;
  readonly fileCount: number;
  readonly credential: ImageCredentialSecret | undefined;
  /** Digest of the artifact that the index was taken from; undefined: it was made here, from the layers. */
  readonly indexArtifact?: string | undefined;
  /** Authenticates the index; see `ImageSeals`. */
  readonly indexSeal?: Uint8Array<ArrayBuffer> | undefined;
}

export interface ImageCredentialSecret {
  readonly secretName: string;
  readonly secretId: SecretId;
}

export interface ImageRow extends NewImage {
  readonly id: ImageId;
  readonly workspaceId: WorkspaceId;
  readonly createdAt: number;
  readonly updatedAt: number;
}

const columns = new Columns('images');

function asLayers(value: unknown): StoredLayer[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const layers: StoredLayer[] = [];
  for (const item of value) {
    const layer = asJsonObject(item);
    const compression = LAYER_COMPRESSIONS.find((known) => known === layer?.compression);
    const { digest, diffId, mediaType, size } = layer ?? {};
    if (
      compression === undefined ||
      typeof digest !== 'string' ||
      typeof diffId !== 'string' ||
      typeof mediaType !== 'string' ||
      typeof size !== 'number'
    ) {
      return undefined;
    }
    layers.push({ digest, diffId, mediaType, size, compression });
  }
  return layers;
}

function readCredential(row: Row): ImageCredentialSecret | undefined {
  const secretName = columns.optionalText(row, 'credential_secret_name');
  const secretId = columns.optionalText(row, 'credential_secret_id');
  if (secretName === undefined || secretId === undefined) return undefined;
  return { secretName, secretId: parseId('sec', secretId) };
}

function readImage(row: Row): ImageRow {
  return {
    id: parseId('img', columns.text(row, 'id')),
    workspaceId: parseId('ws', columns.text(row, 'workspace_id')),
    reference: columns.text(row, 'reference'),
    registry: columns.text(row, 'registry'),
    repository: columns.text(row, 'repository'),
    tag: columns.optionalText(row, 'tag'),
    platform: columns.text(row, 'platform'),
    manifestDigest: columns.text(row, 'manifest_digest'),
    indexDigest: columns.text(row, 'index_digest'),
    config: columns.json(row, 'config', asJsonObject),
    layers: columns.json(row, 'layers', asLayers),
    compressedBytes: columns.integer(row, 'compressed_bytes'),
    uncompressedBytes: columns.integer(row, 'uncompressed_bytes'),
    indexBytes: columns.integer(row, 'index_bytes'),
    fileCount: columns.integer(row, 'file_count'),
    credential: readCredential(row),
    indexArtifact: columns.optionalText(row, 'index_artifact'),
    indexSeal: columns.optionalBytes(row, 'index_seal'),
    createdAt: columns.integer(row, 'created_at'),
    updatedAt: columns.integer(row, 'updated_at'),
  };
}

/** The images registered in one workspace. */
export class ImageRepository {
  readonly #connection: Connection;
  readonly #workspaceId: WorkspaceId;
  readonly #newId: IdentifierSource;
  readonly #now: () => number;

  constructor(connection: Connection, workspaceId: WorkspaceId, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.#workspaceId = workspaceId;
    this.#newId = newId;
    this.#now = now;
  }

  /**
   * Adds an image, or brings the one with the same reference and platform up to date; its id stays. The secret
   * of `credential` must be one of this workspace.
   */
  register(image: NewImage): { readonly image: ImageRow; readonly created: boolean } {
    const id = this.#newId('img');
    const row = this.#connection.one(
      `INSERT INTO images (id, workspace_id, reference, registry, repository, tag, platform, manifest_digest,
         index_digest, config, layers, compressed_bytes, uncompressed_bytes, index_bytes, file_count,
         credential_secret_name, credential_secret_id, index_artifact, index_seal, created_at, updated_at)
       VALUES ($id, $workspaceId, $reference, $registry, $repository, $tag, $platform, $manifestDigest,
         $indexDigest, $config, $layers, $compressedBytes, $uncompressedBytes, $indexBytes, $fileCount,
         $secretName, $secretId, $indexArtifact, $indexSeal, $now, $now)
       ON CONFLICT (workspace_id, reference, platform) DO UPDATE SET
         tag = excluded.tag, manifest_digest = excluded.manifest_digest, index_digest = excluded.index_digest,
         config = excluded.config, layers = excluded.layers, compressed_bytes = excluded.compressed_bytes,
         uncompressed_bytes = excluded.uncompressed_bytes, index_bytes = excluded.index_bytes,
         file_count = excluded.file_count, credential_secret_name = excluded.credential_secret_name,
         credential_secret_id = excluded.credential_secret_id, index_artifact = excluded.index_artifact,
         index_seal = excluded.index_seal, updated_at = excluded.updated_at
       RETURNING *`,
      {
        id,
        workspaceId: this.#workspaceId,
        reference: image.reference,
        registry: image.registry,
        repository: image.repository,
        tag: image.tag ?? null,
        platform: image.platform,
        manifestDigest: image.manifestDigest,
        indexDigest: image.indexDigest,
        config: JSON.stringify(image.config),
        layers: JSON.stringify(image.layers),
        compressedBytes: image.compressedBytes,
        uncompressedBytes: image.uncompressedBytes,
        indexBytes: image.indexBytes,
        fileCount: image.fileCount,
        secretName: image.credential?.secretName ?? null,
        secretId: image.credential?.secretId ?? null,
        indexArtifact: image.indexArtifact ?? null,
        indexSeal: image.indexSeal ?? null,
        now: this.#now(),
      },
      readImage,
    );
    return { image: row, created: row.id === id };
  }

  list(): ImageRow[] {
    return this.#connection.all(
      'SELECT * FROM images WHERE workspace_id = $workspaceId ORDER BY reference, platform',
      { workspaceId: this.#workspaceId },
      readImage,
    );
  }

  /**
   * By id, by a prefix of the id that no other image shares, or by reference (with `platform`, where several
   * platforms of it are registered).
   *
   * @throws DatabaseError INVALID_INPUT when several images match.
   */
  find(idOrReference: string, platform?: string): ImageRow | undefined {
    const isPrefix = /^img_[0-9a-z]+$/.test(idOrReference);
    const found = isPrefix
      ? this.#connection.all(
          `SELECT * FROM images WHERE workspace_id = $workspaceId AND id >= $key AND id < $end LIMIT 2`,
          { workspaceId: this.#workspaceId, key: idOrReference, end: afterPrefix(idOrReference) },
          readImage,
        )
      : this.#connection.all(
          `SELECT * FROM images WHERE workspace_id = $workspaceId AND reference = $key
             AND ($platform IS NULL OR platform = $platform) LIMIT 2`,
          { workspaceId: this.#workspaceId, key: idOrReference, platform: platform ?? null },
          readImage,
        );
    if (found.length > 1) {
      throw new DatabaseError('INVALID_INPUT', `${JSON.stringify(idOrReference)} matches several images`, {
        hint: isPrefix ? 'give more of the id' : `say which platform, such as ${found[0]?.platform}`,
      });
    }
    return found[0];
  }

  /** @throws DatabaseError NOT_FOUND, or INVALID_INPUT when several images match. */
  get(idOrReference: string, platform?: string): ImageRow {
    const found = this.find(idOrReference, platform);
    if (found === undefined) throw notFound('image', idOrReference, 'see `imgcred image ls`');
    return found;
  }

  /** The digests of the layers of all images whose index was made here, from the layers themselves. */
  layersRead(): Set<string> {
    const rows = this.#connection.all(
      'SELECT layers FROM images WHERE workspace_id = $workspaceId AND index_artifact IS NULL',
      { workspaceId: this.#workspaceId },
      (row) => columns.json(row, 'layers', asLayers),
    );
    return new Set(rows.flatMap((layers) => layers.map(({ digest }) => digest)));
  }

  /** An image with this index; there may be several, of one content. */
  withIndex(indexDigest: string): ImageRow | undefined {
    return this.#connection.get(
      'SELECT * FROM images WHERE workspace_id = $workspaceId AND index_digest = $indexDigest ORDER BY id LIMIT 1',
      { workspaceId: this.#workspaceId, indexDigest },
      readImage,
    );
  }

  /** The images whose credential is this secret. */
  usingSecret(secretId: SecretId): ImageRow[] {
    return this.#connection.all(
      'SELECT * FROM images WHERE workspace_id = $workspaceId AND credential_secret_id = $secretId ORDER BY reference',
      { workspaceId: this.#workspaceId, secretId },
      readImage,
    );
  }

  /**
   * Says which secret opens an image's registry.
   * @throws DatabaseError NOT_FOUND
   */
  setImageCredentialSecret(imageId: ImageId, credential: ImageCredentialSecret | undefined): void {
    const changed = this.#connection.run(
      `UPDATE images SET credential_secret_name = $secretName, credential_secret_id = $secretId, updated_at = $now
       WHERE workspace_id = $workspaceId AND id = $imageId`,
      {
        workspaceId: this.#workspaceId,
        imageId,
        secretName: credential?.secretName ?? null,
        secretId: credential?.secretId ?? null,
        now: this.#now(),
      },
    );
    if (changed === 0) throw notFound('image', imageId);
  }

  /**
   * Which secret opens an image's registry; undefined for a public one.
   * @throws DatabaseError NOT_FOUND
   */
  getImageCredentialSecret(imageId: ImageId): ImageCredentialSecret | undefined {
    const found = this.#connection.get(
      'SELECT credential_secret_name, credential_secret_id FROM images WHERE workspace_id = $workspaceId AND id = $imageId',
      { workspaceId: this.#workspaceId, imageId },
      (row) => ({ credential: readCredential(row) }),
    );
    if (found === undefined) throw notFound('image', imageId);
    return found.credential;
  }

  /**
   * Removes an image; the requests that have ended keep its reference as text.
   * @throws DatabaseError CONFLICT while a container of it has not ended.
   */
  delete(imageId: ImageId): boolean {
    const key = { workspaceId: this.#workspaceId, imageId };
    return this.#connection.transaction(() => {
      const live = this.#connection.one(
        `SELECT count(*) AS live FROM containers WHERE workspace_id = $workspaceId AND image_id = $imageId
           AND state NOT IN ('exited', 'failed', 'cancelled')`,
        key,
        (row) => columns.integer(row, 'live'),
      );
      if (live > 0) {
        throw conflict(`image ${imageId} is in use by ${counted(live, 'container')}`, {
          hint: `stop ${live === 1 ? 'it' : 'them'} first`,
        });
      }
      this.#connection.run(
        'UPDATE containers SET image_id = NULL WHERE workspace_id = $workspaceId AND image_id = $imageId',
        key,
      );
      return (
        this.#connection.run('DELETE FROM images WHERE workspace_id = $workspaceId AND id = $imageId', key) >
        0
      );
    });
  }
}

/** The digests of all indexes that any workspace's image uses: what must not be deleted from disk. */
export function indexDigestsInUse(connection: Connection): Set<string> {
  return new Set(
    connection.all('SELECT DISTINCT index_digest FROM images', {}, (row) =>
      columns.text(row, 'index_digest'),
    ),
  );
}
