import { importEntry } from '../../entries/index.ts';
import { CredentialError } from '../error.ts';
import { Secret } from '../secret.ts';
import type { FetchedLogin } from './login-cache.ts';
import { type Fetch, refusedBy } from './service-answer.ts';

// Enough to pull from both Artifact Registry and gcr.io, and for nothing that writes.
const SCOPE = 'https://www.googleapis.com/auth/devstorage.read_only';
const TOKEN_LIFE = 60 * 60_000;

/**
 * Exchanges a service account's key for an access token: a JWT that the key signs is sent to Google's token
 * service. The key itself doesn't leave the process.
 *
 * @throws CredentialError
 * @see https://developers.google.com/identity/protocols/oauth2/service-account#httprest
 */
export async function fetchGoogleLogin(
  registry: string,
  key: { readonly email: string; readonly privateKey: string },
  options: { readonly now: () => number; readonly fetch: Fetch },
  signal: AbortSignal,
): Promise<FetchedLogin> {
  const { JWT } = await importEntry<typeof import('./google-sdk.ts')>('credentials/providers/google-sdk');
  const fetchImplementation = (url: string | URL | Request, init: RequestInit = {}) =>
    options.fetch(url instanceof Request ? url.url : String(url), { ...init, signal });
  const client = new JWT({
    email: key.email,
    key: key.privateKey,
    scopes: [SCOPE],
    transporterOptions: { fetchImplementation },
  });
  try {
    const { access_token: token, expiry_date: expiresAt } = await client.authorize();
    if (typeof token !== 'string' || token === '') {
      throw new CredentialError(
        'REGISTRY_ERROR',
        registry,
        "Google's token service answered without a token",
      );
    }
    const login = { kind: 'basic', username: 'oauth2accesstoken', password: new Secret(token) } as const;
    return { login, expiresAt: expiresAt ?? options.now() + TOKEN_LIFE };
  } catch (error) {
    throw explain(registry, error);
  }
}

function explain(registry: string, error: unknown): CredentialError {
  if (error instanceof CredentialError) return error;
  const response = error instanceof Error && 'response' in error ? error.response : undefined;
  const status =
    typeof response === 'object' && response !== null && 'status' in response ? response.status : undefined;
  if (typeof status === 'number') return refusedBy(registry, "Google's token service", status);
  // Not the error itself as the cause: it carries the request with the signed assertion, or the key it can't read.
  if (error instanceof Error && !('config' in error)) {
    return new CredentialError(
      'INVALID_CREDENTIALS',
      registry,
      'the private key of the service account cannot sign',
      {
        hint: 'is private_key a whole PEM block?',
      },
    );
  }
  return new CredentialError('REGISTRY_UNREACHABLE', registry, "Google's token service could not be reached");
}
