import { z } from 'zod';
import type { Secret } from '../credentials/index.ts';
import type { ContainerRow, Database, ImageRow, WorkspaceId } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import {
  type ContainerRequest,
  type ContainerSecretUse,
  createContainerSchema,
  type ImageRequest,
} from '../protocol/index.ts';
import type { SecretStore, SecretUse } from '../secrets/index.ts';
import { credentialVersion } from './credential-deliveries.ts';
import { traceOf } from './traces.ts';

/** What `POST /v1/containers` stored of a request: its body, but for what has columns of its own. */
const storedSpecSchema = createContainerSchema.pick({
  command: true,
  env: true,
  overrides: true,
  secrets: true,
  max_fetch_bytes: true,
  worker_labels: true,
});

/**
 * Makes the request that a worker gets from a claimed row. The credential of its image is looked up by the
 * image's id and decrypted here, for this one dispatch: a rotation between two dispatches needs nothing else.
 *
 * @throws ImgcredError NOT_FOUND when the image is gone; what the secret store throws when its secret is
 */
export async function requestOf(
  row: ContainerRow,
  sources: { database: Database; secrets: SecretStore; firstLogNumber: number },
): Promise<ContainerRequest> {
  const { images } = sources.database.workspace(row.workspaceId);
  const image = row.imageId === undefined ? undefined : images.find(row.imageId);
  if (image === undefined) {
    throw new ImgcredError(
      'NOT_FOUND',
      `the image ${row.imageReference} was removed before it could be run`,
      {
        hint: 'register it again with `imgcred image add`',
      },
    );
  }
  const parsed = storedSpecSchema.safeParse(row.spec);
  if (!parsed.success) {
    throw new ImgcredError(
      'DATABASE',
      `the stored request of ${row.id} is not as expected: ${z.prettifyError(parsed.error)}`,
    );
  }
  const spec = parsed.data;
  const opened = await imageRequestOf(row.workspaceId, image, sources, {
    actor: 'scheduler',
    purpose: 'dispatch',
    containerId: row.id,
  });
  return {
    ...opened,
    container_id: row.id,
    attempt: row.attempt,
    ...(spec.command === undefined ? {} : { command: spec.command }),
    env: spec.env,
    overrides: spec.overrides,
    ...(spec.secrets === undefined
      ? {}
      : { secrets: spec.secrets, secret_values: await secretValues(row, spec.secrets, sources.secrets) }),
    ...(spec.max_fetch_bytes === undefined ? {} : { max_fetch_bytes: spec.max_fetch_bytes }),
    first_log_number: sources.firstLogNumber,
  };
}

/**
 * The values of the secrets that a container gets, decrypted for this one dispatch.
 *
 * @throws ImgcredError FORBIDDEN for a registry's login; what the secret store throws when a secret is gone
 */
async function secretValues(
  row: ContainerRow,
  uses: readonly ContainerSecretUse[],
  secrets: SecretStore,
): Promise<Secret<string>[]> {
  const values: Secret<string>[] = [];
  for (const { name } of uses) {
    // Looked at before anything is decrypted; it may have become another kind since the request was made.
    if (secrets.show(row.workspaceId, name).kind !== 'opaque') {
      throw new ImgcredError('FORBIDDEN', `the secret ${JSON.stringify(name)} is a registry's login`, {
        hint: 'no container gets one: keep what it needs in a secret of its own',
      });
    }
    const use: SecretUse = { actor: 'scheduler', purpose: 'container', containerId: row.id };
    values.push((await secrets.getSecretByNameDecrypted(row.workspaceId, name, use)).value);
  }
  return values;
}

/**
 * An image with its credential, decrypted now for one use. Its index is the one that registration sealed.
 *
 * @throws SecretError CORRUPT for an image whose row was changed; what the secret store throws when the secret is gone
 */
export async function imageRequestOf(
  workspaceId: WorkspaceId,
  image: ImageRow,
  sources: { readonly database: Database; readonly secrets: SecretStore },
  use: SecretUse,
): Promise<ImageRequest> {
  await sources.secrets.checkImage(image);
  const credential = sources.database.workspace(workspaceId).images.getImageCredentialSecret(image.id);
  const secret =
    credential === undefined
      ? undefined
      : await sources.secrets.getSecretByNameDecrypted(workspaceId, credential.secretName, use);
  const trace = traceOf(sources.database, image);
  return {
    workspace_id: workspaceId,
    image: {
      id: image.id,
      reference: image.reference,
      registry: image.registry,
      repository: image.repository,
      manifest_digest: image.manifestDigest,
      index_digest: image.indexDigest,
      ...(image.indexArtifact === undefined ? {} : { index_artifact: image.indexArtifact }),
      config: { ...image.config },
    },
    credential_version: credentialVersion(
      secret === undefined ? undefined : { id: secret.secret.id, version: secret.version },
    ),
    ...(secret === undefined ? {} : { image_credentials: secret.value }),
    ...(trace === undefined ? {} : { trace }),
  };
}
