import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
  detectCredentialType,
  type Secret,
  unmarshalCredentials,
} from '../credentials/index.ts';
import type { ImageRow, WorkspaceId } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { normalizeRegistryHost } from '../reference/index.ts';
import type { SecretStore, SecretUse } from '../secrets/index.ts';

/** A credential as a request names it: its values, or a secret that the workspace has. */
export interface GivenCredential {
  readonly base_image_creds?: Readonly<Record<string, string>> | undefined;
  readonly secret?: string | undefined;
}

/**
 * The provider of what a request names for a registry; an anonymous one where it names nothing.
 *
 * @throws ImgcredError INVALID_INPUT, INVALID_CREDENTIALS, NOT_FOUND
 */
export async function providerOfGiven(
  secrets: SecretStore,
  workspaceId: WorkspaceId,
  registry: string,
  { base_image_creds: credentials, secret: name }: GivenCredential,
  use: SecretUse,
): Promise<CredentialProvider> {
  if (credentials !== undefined && name !== undefined) {
    throw new ImgcredError('INVALID_INPUT', 'give base_image_creds or secret, not both');
  }
  if (name !== undefined) {
    const { secret, value } = await secrets.getSecretByNameDecrypted(workspaceId, name, use);
    if (secret.kind !== 'registry' || !sameRegistry(secret.registry, registry)) {
      throw new ImgcredError(
        'INVALID_CREDENTIALS',
        `the secret ${secret.name} is not for the registry ${registry}`,
        { hint: 'see `imgcred secret ls`' },
      );
    }
    return providerOfValue(value, registry);
  }
  if (credentials === undefined) return anonymousProvider(registry);
  if (detectCredentialType(registry, credentials) === 'public') {
    throw new ImgcredError('INVALID_CREDENTIALS', `the credential for ${registry} is empty`, {
      hint: 'leave base_image_creds out for a public image',
    });
  }
  return createProviderFromCredentials(registry, credentials);
}

/** The provider of an image's own secret, or an anonymous one for a public image. */
export async function providerOfImage(
  secrets: SecretStore,
  workspaceId: WorkspaceId,
  image: ImageRow,
  use: SecretUse,
): Promise<CredentialProvider> {
  if (image.credential === undefined) return anonymousProvider(image.registry);
  const { value } = await secrets.getSecretByNameDecrypted(workspaceId, image.credential.secretName, use);
  return providerOfValue(value, image.registry);
}

/** The provider of a credential in its stored form. @throws CredentialError */
export function providerOfValue(value: Secret<string>, registry: string): CredentialProvider {
  return createProviderFromCredentials(registry, unmarshalCredentials(value.reveal(), registry).credentials);
}

// A registry may be spelt in several ways (`docker.io`, `index.docker.io`, `HOST:443`).
function sameRegistry(one: string | undefined, other: string): boolean {
  return one !== undefined && normalizeRegistryHost(one) === normalizeRegistryHost(other);
}
