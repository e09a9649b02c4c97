import { CredentialError } from '../error.ts';
import { Secret } from '../secret.ts';
import type { FetchedLogin } from './login-cache.ts';
import { type Fetch, parseObject, postForJson, textOf } from './service-answer.ts';

// What the service gives where the token doesn't say.
const TOKEN_LIFE = 3 * 60 * 60_000;

/**
 * Exchanges a Microsoft Entra access token at the registry for a refresh token, which the registry client then
 * trades for access tokens at `/oauth2/token`.
 *
 * @throws CredentialError
 * @see https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
 */
export async function fetchAzureLogin(
  registry: string,
  given: { readonly accessToken: string; readonly tenant?: string },
  options: { readonly now: () => number; readonly fetch: Fetch; readonly endpoint?: string | undefined },
  signal: AbortSignal,
): Promise<FetchedLogin> {
  const ends = expiryOf(given.accessToken);
  if (ends !== undefined && ends <= options.now()) {
    const reason = 'AZURE_ACCESS_TOKEN has expired';
    const hint = 'an Entra token lives about an hour: use a service principal for what has to last';
    throw new CredentialError('CREDENTIALS_REFUSED', registry, reason, { hint });
  }
  const form = new URLSearchParams({
    grant_type: 'access_token',
    service: registry,
    access_token: given.accessToken,
  });
  if (given.tenant !== undefined) form.set('tenant', given.tenant);
  const url = `${options.endpoint ?? `https://${registry}`}/oauth2/exchange`;
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  const service = 'its token exchange';
  const answer = await postForJson(
    registry,
    service,
    url,
    { headers, body: form.toString() },
    options.fetch,
    signal,
  );
  const token = textOf(answer, 'refresh_token');
  if (token === undefined) {
    throw new CredentialError('REGISTRY_ERROR', registry, `${service} answered without a refresh token`);
  }
  const login = { kind: 'identity-token', token: new Secret(token) } as const;
  return { login, expiresAt: expiryOf(token) ?? options.now() + TOKEN_LIFE };
}

/** When a JWT says that it ends (milliseconds since 1970). Its signature is its issuer's business. */
function expiryOf(token: string): number | undefined {
  const payload = token.split('.')[1];
  if (payload === undefined) return undefined;
  const claims = parseObject(Buffer.from(payload, 'base64url').toString('utf8'));
  const seconds = claims !== undefined && 'exp' in claims ? claims.exp : undefined;
  return typeof seconds === 'number' && Number.isFinite(seconds) ? seconds * 1000 : undefined;
}
