import type { ContainerRow, ImageRow, SecretRow, TraceRow } from '../database/index.ts';

/** What the API shows of an image. */
export function imageView(image: ImageRow) {
  return {
    id: image.id,
    reference: image.reference,
    registry: image.registry,
    repository: image.repository,
    tag: image.tag ?? null,
    platform: image.platform,
    manifest_digest: image.manifestDigest,
    index_digest: image.indexDigest,
    index_origin: image.indexArtifact === undefined ? 'local' : 'registry',
    index_artifact: image.indexArtifact ?? null,
    layers: image.layers.map((layer) => ({
      digest: layer.digest,
      diff_id: layer.diffId,
      media_type: layer.mediaType,
      size: layer.size,
    })),
    compressed_bytes: image.compressedBytes,
    uncompressed_bytes: image.uncompressedBytes,
    index_bytes: image.indexBytes,
    file_count: image.fileCount,
    credential_secret_name: image.credential?.secretName ?? null,
    credential_secret_id: image.credential?.secretId ?? null,
    created_at: iso(image.createdAt),
    updated_at: iso(image.updatedAt),
  };
}

/** What the API shows of what an image's starts touched. */
export function traceView(trace: TraceRow) {
  return { starts: trace.starts, updated_at: iso(trace.updatedAt) };
}

/**
 * What the API shows of a container: its request, its state, and what its image cost.
 *
 * @param worker the name of the worker that has it, or had it
 * @param waiting why no worker has taken it yet
 */
export function containerView(row: ContainerRow, worker: string | undefined, waiting: string | undefined) {
  return {
    id: row.id,
    name: row.name ?? null,
    image_id: row.imageId ?? null,
    image_reference: row.imageReference,
    state: row.state,
    command: Array.isArray(row.spec.command) ? row.spec.command : null,
    env: row.spec.env ?? {},
    overrides: row.spec.overrides ?? {},
    secrets: row.spec.secrets ?? [],
    worker_id: row.workerId ?? null,
    worker: worker ?? null,
    attempt: row.attempt,
    exit_code: row.exitCode ?? null,
    reason: row.reason ?? null,
    waiting_reason: waiting ?? null,
    error: row.state === 'failed' ? (row.error ?? unexplained(row.reason)) : null,
    restart: row.restartLimit === undefined ? row.restartPolicy : `${row.restartPolicy}:${row.restartLimit}`,
    restart_count: row.restartCount,
    fetch: row.fetchReport ?? null,
    created_at: iso(row.createdAt),
    assigned_at: isoOrNull(row.assignedAt),
    started_at: isoOrNull(row.startedAt),
    finished_at: isoOrNull(row.finishedAt),
  };
}

/** What the API shows of a secret: never its value. */
export function secretView(secret: SecretRow) {
  return {
    id: secret.id,
    name: secret.name,
    kind: secret.kind,
    registry: secret.registry ?? null,
    credential_type: secret.credentialType ?? null,
    version: secret.currentVersion,
    created_by: secret.createdBy,
    created_at: iso(secret.createdAt),
    updated_at: iso(secret.updatedAt),
  };
}

export function iso(time: number): string {
  return new Date(time).toISOString();
}

export function isoOrNull(time: number | undefined): string | null {
  return time === undefined ? null : iso(time);
}

function unexplained(reason: string | undefined) {
  return { code: 'CONTAINER_FAILED', message: reason ?? 'it failed' };
}
