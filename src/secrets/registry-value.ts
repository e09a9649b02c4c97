import {
  type CredentialMap,
  marshalCredentials,
  Secret,
  unmarshalCredentials,
} from '../credentials/index.ts';

/** The value of a registry's secret, as it is stored. */
export interface RegistryValue {
  readonly value: Secret<string>;
  readonly credentialType: string;
}

/**
 * Checks the value of a registry's secret and gives it in the one form in which it is stored, so that the same
 * credential is always the same text.
 *
 * @throws CredentialError INVALID_CREDENTIALS when it can't be read, or is for another registry
 */
export function normalizeRegistryValue(registry: string, value: Secret<string>): RegistryValue {
  const { type, credentials } = unmarshalCredentials(value.reveal(), registry);
  return { value: new Secret(marshalCredentials(registry, type, sorted(credentials))), credentialType: type };
}

function sorted(credentials: CredentialMap): CredentialMap {
  return Object.fromEntries(Object.entries(credentials).sort(([a], [b]) => (a < b ? -1 : 1)));
}
