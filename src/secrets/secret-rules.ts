import type { Secret } from '../credentials/index.ts';
import type { SecretRow } from '../database/index.ts';
import { type Bytes, utf8 } from './encoding.ts';
import type { EnvelopeSubject } from './envelope.ts';
import { SecretError } from './errors.ts';
import { normalizeRegistryValue } from './registry-value.ts';

// Long enough for the name of the longest registry with its suffixes (`createSecretName`).
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,299}$/;
/** The longest value, bytes of UTF-8: as long as a Linux environment string may be (`MAX_ARG_STRLEN`). */
export const MAX_VALUE_BYTES = 128 * 1024;

/** Where the envelope of one version belongs. */
export function subjectOf(
  secret: Pick<SecretRow, 'id' | 'workspaceId' | 'name'>,
  version: number,
): EnvelopeSubject {
  return {
    kind: 'value',
    context: [secret.workspaceId, secret.id, secret.name, version],
    name: `secret ${JSON.stringify(secret.name)} version ${version}`,
  };
}

/** @throws SecretError INVALID_INPUT */
export function checkName(name: string): void {
  // What looks like an id would hide the secret with that id.
  if (NAME.test(name) && !name.startsWith('sec_')) return;
  throw new SecretError('INVALID_INPUT', `${JSON.stringify(name)} is no name for a secret`, {
    hint: 'use up to 300 letters, digits, ".", "_" and "-", not starting with "sec_"',
  });
}

/**
 * A value in the form in which it is stored: only what can be used as a login becomes that of a registry's secret.
 * @throws CredentialError INVALID_CREDENTIALS
 */
export function shaped(
  registry: string | undefined,
  value: Secret<string>,
): { readonly value: Secret<string>; readonly credentialType: string | undefined } {
  return registry === undefined
    ? { value, credentialType: undefined }
    : normalizeRegistryValue(registry, value);
}

/**
 * The bytes of a value, which the caller overwrites after use.
 * @throws SecretError INVALID_INPUT when it is empty, too long, or not valid text
 */
export function checkedValue(name: string, value: Secret<string>): Bytes {
  const text = value.reveal();
  const bytes = utf8(text);
  const problem =
    bytes.length === 0
      ? 'is empty'
      : bytes.length > MAX_VALUE_BYTES
        ? `is longer than ${MAX_VALUE_BYTES} bytes`
        : !text.isWellFormed()
          ? 'is not valid text'
          : undefined;
  if (problem === undefined) return bytes;
  bytes.fill(0);
  throw new SecretError('INVALID_INPUT', `the value of secret ${JSON.stringify(name)} ${problem}`);
}
