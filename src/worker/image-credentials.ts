import {
  type CredentialType,
  createProviderFromCredentials,
  unmarshalCredentials,
} from '../credentials/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContainerRequest } from '../protocol/index.ts';

/**
 * Parses and checks the credential that came with a request, by making the provider that the mount will use; says
 * in the log which kind it is, never its value.
 *
 * @throws CredentialError INVALID_CREDENTIALS for one that is not for this registry, or of no known kind
 */
export function checkImageCredentials(request: ContainerRequest, logger: Logger): CredentialType {
  const { registry } = request.image;
  const credential = request.image_credentials;
  const type =
    credential === undefined
      ? 'public'
      : createProviderFromCredentials(
          registry,
          unmarshalCredentials(credential.reveal(), registry).credentials,
        ).type;
  logger.info('using credential provider for OCI image mount', { registry, credential_type: type });
  return type;
}
