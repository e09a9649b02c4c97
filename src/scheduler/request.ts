import { z } from 'zod';
import type { ContainerRow, Database } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { type ContainerRequest, createContainerSchema } from '../protocol/index.ts';
import type { SecretStore } from '../secrets/index.ts';
import { credentialVersion } from './credential-deliveries.ts';

/** What `POST /v1/containers` stored of a request: its body, but for what has columns of its own. */
export const storedSpecSchema = createContainerSchema.pick({
  command: true,
  env: true,
  overrides: true,
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
  const credential = images.getImageCredentialSecret(image.id);
  const secret =
    credential === undefined
      ? undefined
      : await sources.secrets.getSecretByNameDecrypted(row.workspaceId, credential.secretName, {
          actor: 'scheduler',
          purpose: 'dispatch',
          containerId: row.id,
        });
  return {
    container_id: row.id,
    workspace_id: row.workspaceId,
    attempt: row.attempt,
    image: {
      id: image.id,
      reference: image.reference,
      registry: image.registry,
      repository: image.repository,
      manifest_digest: image.manifestDigest,
      index_digest: image.indexDigest,
      config: { ...image.config },
    },
    ...(spec.command === undefined ? {} : { command: spec.command }),
    env: spec.env,
    overrides: spec.overrides,
    ...(spec.max_fetch_bytes === undefined ? {} : { max_fetch_bytes: spec.max_fetch_bytes }),
    credential_version: credentialVersion(
      secret === undefined ? undefined : { id: secret.secret.id, version: secret.version },
    ),
    first_log_number: sources.firstLogNumber,
    ...(secret === undefined ? {} : { image_credentials: secret.value }),
  };
}
