import { z } from 'zod';
import { type Login, Secret } from '../credentials/index.ts';
import { AccessRefusedError, RegistryError } from './errors.ts';
import { describeFailure, type Failure, failureError, readFailure } from './failure.ts';
import { isLoopback } from './hosts.ts';
import type { Reply } from './reply.ts';
import { basicAuthorization, type Transport } from './transport.ts';

/** Where a registry sends its clients for a token, from its challenge. */
export interface TokenService {
  readonly realm: URL;
  readonly service: string | undefined;
}

export interface IssuedToken {
  readonly token: Secret<string>;
  /** How long it is good, in seconds. */
  readonly lifetimeSeconds: number;
}

// "If omitted, this defaults to 60 seconds", and no shorter one is of use.
const DEFAULT_LIFETIME_SECONDS = 60;
const TOKEN_REPLY_LIMIT = 1024 * 1024;
// Shown to the owner of an identity token in the registry's list of grants.
const CLIENT_ID = 'imgcred';

const tokenReply = z.looseObject({
  token: z.string().nullish(),
  access_token: z.string().nullish(),
  // Some servers send the number as a string.
  expires_in: z.coerce.number().nullish().catch(undefined),
});

/**
 * The token service that a Bearer challenge names.
 *
 * The realm's host is given the password, so it must speak https, unless the registry itself speaks plain http
 * and the realm is on the same machine or on one that plain http is allowed to.
 *
 * @throws RegistryError for a realm that is missing, no URL, or not to be trusted with a login
 */
export function tokenService(
  parameters: ReadonlyMap<string, string>,
  registryUrl: URL,
  transport: Transport,
): TokenService {
  const realm = parameters.get('realm') ?? '';
  const registry = registryUrl.host;
  if (!URL.canParse(realm)) {
    throw new RegistryError('REGISTRY_ERROR', `${registry} names no address for its tokens`, { registry });
  }
  const url = new URL(realm);
  url.username = '';
  url.password = '';
  url.hash = '';
  const plainHttpIsFine =
    url.protocol === 'http:' &&
    registryUrl.protocol === 'http:' &&
    (url.hostname === registryUrl.hostname || isLoopback(url.hostname) || transport.allowsPlainHttp(url));
  if (url.protocol !== 'https:' && !plainHttpIsFine) {
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${registry} wants the login sent in the clear to ${url.host}: refused`,
      {
        registry,
        hint: 'its token endpoint must speak https',
      },
    );
  }
  return { realm: url, service: parameters.get('service') };
}

/**
 * Exchanges a login for a token, once: GET with HTTP basic (or nothing), or OAuth2's POST for an identity token,
 * which falls back to GET where POST is not known.
 *
 * @throws AccessRefusedError when the token endpoint refuses the login; RegistryError (perhaps transient)
 * @see https://distribution.github.io/distribution/spec/auth/token/
 * @see https://distribution.github.io/distribution/spec/auth/oauth/
 */
export async function requestToken(
  transport: Transport,
  service: TokenService,
  scope: string,
  login: Login,
  options: { now: () => number; signal?: AbortSignal | undefined },
): Promise<IssuedToken> {
  const secrets = secretsOf(login);
  if (login.kind === 'identity-token') {
    const reply = await transport.send({
      method: 'POST',
      url: service.realm,
      form: refreshForm(service, scope, login.token),
      headers: { Accept: 'application/json' },
      signal: options.signal,
    });
    if (reply.status !== 404 && reply.status !== 405) return readToken(reply, service, secrets, options.now);
    reply.dispose();
  }
  const reply = await transport.send({
    url: queryUrl(service, scope),
    authorization: basicFor(login),
    headers: { Accept: 'application/json' },
    signal: options.signal,
  });
  return readToken(reply, service, secrets, options.now);
}

function queryUrl({ realm, service }: TokenService, scope: string): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  for (const one of scope.split(' ')) if (one !== '') url.searchParams.append('scope', one);
  return url;
}

function refreshForm({ service }: TokenService, scope: string, token: Secret<string>): Secret<string> {
  const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: CLIENT_ID });
  if (service !== undefined) form.set('service', service);
  if (scope !== '') form.set('scope', scope);
  form.set('refresh_token', token.reveal());
  return new Secret(form.toString());
}

function basicFor(login: Login): Secret<string> | undefined {
  if (login.kind === 'basic') return basicAuthorization(login.username, login.password);
  // The user name under which Docker's clients store an identity token.
  return login.kind === 'identity-token' ? basicAuthorization('<token>', login.token) : undefined;
}

/** The secret values of a login, in each form that a server might echo. */
export function secretsOf(login: Login): Secret<string>[] {
  if (login.kind === 'anonymous') return [];
  if (login.kind !== 'basic') return [login.token, new Secret(encodeURIComponent(login.token.reveal()))];
  const encoded = basicAuthorization(login.username, login.password).reveal().slice('Basic '.length);
  return [login.password, new Secret(encodeURIComponent(login.password.reveal())), new Secret(encoded)];
}

async function readToken(
  reply: Reply,
  service: TokenService,
  secrets: Secret<string>[],
  now: () => number,
): Promise<IssuedToken> {
  if (reply.status !== 200) throw tokenError(await readFailure(reply, now(), secrets), secrets.length === 0);
  const host = service.realm.host;
  const malformed = (cause?: unknown) =>
    new RegistryError('REGISTRY_ERROR', `the token endpoint ${host} gave no token`, {
      registry: host,
      cause,
    });
  let json: unknown;
  const bytes = await reply.bytes(TOKEN_REPLY_LIMIT);
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    // A JSON parser's message quotes what it read, which may be the token.
    throw malformed(cause instanceof SyntaxError ? undefined : cause);
  }
  const { data } = tokenReply.safeParse(json);
  const token = data?.token || data?.access_token || '';
  // What goes into a header must be one line of visible characters.
  if (!/^[\x21-\x7e]+$/.test(token)) throw malformed();
  const lifetime = data?.expires_in ?? 0;
  return {
    token: new Secret(token),
    lifetimeSeconds: Number.isFinite(lifetime) && lifetime > 0 ? lifetime : DEFAULT_LIFETIME_SECONDS,
  };
}

function tokenError(failure: Failure, anonymous: boolean): RegistryError {
  const { status, host } = failure;
  // OAuth2 says 400 invalid_grant for a refresh token that is not accepted (RFC 6749 §5.2).
  const refused =
    status === 401 ||
    status === 403 ||
    (status === 400 && /invalid_(grant|client|token)/.test(failure.code ?? ''));
  if (!refused) {
    const error = failureError(failure, 'a token');
    // A token endpoint that is not there says nothing about the image.
    if (status !== 404) return error;
    return new RegistryError('REGISTRY_ERROR', error.message, { registry: host, httpStatus: status });
  }
  const said = describeFailure(failure);
  const common = { registry: host, httpStatus: status, registryCode: failure.code };
  if (anonymous) {
    return new AccessRefusedError('anonymous', `${host} gives no token without a login (${said})`, {
      ...common,
      hint: 'the image may be private: give credentials for its registry',
    });
  }
  const expired = /expired/i.test(`${failure.code} ${failure.message}`);
  return new AccessRefusedError(expired ? 'expired' : 'unauthorized', `${host} refused the login (${said})`, {
    ...common,
    hint: 'check user name and password or token; has it expired or been revoked?',
  });
}
