import { CredentialError } from './error.ts';
import type { LoginPlan } from './login-plan.ts';

/**
 * How a Google service account's key logs in: as the password of `_json_key` (or `_json_key_base64` where it came
 * so), or exchanged for a token of an hour's life.
 *
 * @throws CredentialError `INVALID_CREDENTIALS` when it isn't such a key
 * @see https://cloud.google.com/artifact-registry/docs/docker/authentication#json-key
 */
export function planGoogleKey(registry: string, value: string, exchange: boolean): LoginPlan {
  const isText = value.startsWith('{');
  const key = parseServiceAccountKey(registry, isText ? value : decodeBase64(registry, value));
  if (exchange) return { kind: 'google-exchange', ...key };
  // White space that wraps base64 lines is no part of it.
  return isText
    ? { kind: 'basic', username: '_json_key', password: value }
    : { kind: 'basic', username: '_json_key_base64', password: value.replace(/\s+/g, '') };
}

function decodeBase64(registry: string, value: string): string {
  const compact = value.replace(/\s+/g, '');
  const decoded = /^[A-Za-z0-9+/_-]+={0,2}$/.test(compact)
    ? Buffer.from(compact, 'base64').toString('utf8')
    : '';
  if (!decoded.trimStart().startsWith('{')) {
    throw invalid(
      registry,
      'is neither the JSON of a service account key nor its base64 form',
      'give the content of the key file, not its path',
    );
  }
  return decoded;
}

function parseServiceAccountKey(registry: string, text: string): { email: string; privateKey: string } {
  let key: unknown;
  try {
    key = JSON.parse(text);
  } catch {
    // The parser's own message quotes what it read.
    throw invalid(registry, 'is not valid JSON');
  }
  if (typeof key !== 'object' || key === null) throw invalid(registry, 'is not a JSON object');
  // Other kinds may name files, programs and URLs to fetch tokens from: not for a server to follow.
  if (!('type' in key) || key.type !== 'service_account') {
    throw invalid(registry, 'is not of type service_account', 'only service account keys are taken');
  }
  if (!('client_email' in key) || typeof key.client_email !== 'string')
    throw invalid(registry, 'has no client_email');
  if (!('private_key' in key) || typeof key.private_key !== 'string')
    throw invalid(registry, 'has no private_key');
  return { email: key.client_email, privateKey: key.private_key };
}

function invalid(registry: string, reason: string, hint?: string): CredentialError {
  return new CredentialError('INVALID_CREDENTIALS', registry, `GCP_SERVICE_ACCOUNT_KEY ${reason}`, { hint });
}
