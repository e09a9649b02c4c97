import { createHash } from 'node:crypto';
import { type CredentialProvider, type Login, Secret } from '../credentials/index.ts';
import { parseChallenges } from './challenge.ts';
import { AccessRefusedError } from './errors.ts';
import { joinScopes } from './scope.ts';
import { type IssuedToken, requestToken, secretsOf, type TokenService, tokenService } from './token.ts';
import { type CachedToken, TokenCache } from './token-cache.ts';
import { basicAuthorization, type Transport } from './transport.ts';

/** How the registry wants to be logged in to, as its last challenge said. */
export type Scheme =
  | { readonly kind: 'open' }
  | { readonly kind: 'basic' }
  | { readonly kind: 'bearer'; readonly service: TokenService }
  /** The provider's own token is sent as it is: no token endpoint takes part. */
  | { readonly kind: 'direct' }
  /** A scheme that we don't speak. */
  | { readonly kind: 'other'; readonly name: string };

/** What one request was sent with: enough to judge a refusal. */
export interface Authorization {
  readonly header: Secret<string> | undefined;
  readonly login: Login;
  readonly secrets: readonly Secret<string>[];
  /** Names the credential without being it. */
  readonly credential: string;
  readonly scope: string;
  readonly token?: { readonly key: string; readonly cached: CachedToken; readonly fresh: boolean };
}

export interface AuthorizerOptions {
  readonly now: () => number;
  readonly random: () => number;
  /** Wraps the exchange of a login for a token: retries, and the life of the client. */
  readonly exchange: (attempt: (signal: AbortSignal) => Promise<IssuedToken>) => Promise<IssuedToken>;
}

// How long a final refusal stands without asking the token endpoint or the provider again, in ms: a revoked
// credential under a hundred readers must not become a hundred logins a second.
const DENIAL_MEMORY_MS = 15_000;

/**
 * Turns a provider's login into the `Authorization` of requests to one registry, and decides after a refusal
 * whether a fresh one is worth one more try.
 */
export class Authorizer {
  readonly #provider: CredentialProvider;
  readonly #transport: Transport;
  readonly #registryUrl: () => URL;
  readonly #options: AuthorizerOptions;
  readonly #tokens: TokenCache;
  readonly #denials = new Map<string, Denial>();
  readonly #demandedScopes = new Map<string, string>();
  readonly #names = new WeakMap<Login, string>();
  #scheme: Scheme = { kind: 'open' };

  constructor(
    provider: CredentialProvider,
    transport: Transport,
    registryUrl: () => URL,
    options: AuthorizerOptions,
  ) {
    this.#provider = provider;
    this.#transport = transport;
    this.#registryUrl = registryUrl;
    this.#options = options;
    this.#tokens = new TokenCache(options);
  }

  get scheme(): Scheme {
    return this.#scheme;
  }

  /**
   * Takes over what a `WWW-Authenticate` asks for; of several offers the one that the login fits. `scope` is that
   * of the refused request: what the challenge demands on top of it counts for that scope only, so that one
   * repository's name never goes into the token of another.
   *
   * @throws RegistryError for a token endpoint that may not be given a login
   */
  async learn(header: string | null, scope?: string, signal?: AbortSignal): Promise<Scheme> {
    const challenges = parseChallenges(header ?? '');
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    const basic = challenges.find(({ scheme }) => scheme === 'basic');
    const login = await this.#provider.login(signal);
    if (login.kind === 'bearer' && (bearer ?? basic) !== undefined) {
      this.#scheme = { kind: 'direct' };
    } else if (bearer !== undefined && (basic === undefined || bearer.parameters.has('realm'))) {
      this.#scheme = {
        kind: 'bearer',
        service: tokenService(bearer.parameters, this.#registryUrl(), this.#transport),
      };
      const demanded = bearer.parameters.get('scope');
      if (scope !== undefined && demanded !== undefined) this.#demandedScopes.set(scope, demanded);
    } else if (basic !== undefined) {
      this.#scheme = { kind: 'basic' };
    } else if (challenges[0] !== undefined) {
      this.#scheme = { kind: 'other', name: challenges[0].scheme };
    }
    return this.#scheme;
  }

  /**
   * The authorization for a request within `scope`.
   *
   * @throws AccessRefusedError when the token endpoint refuses the login, CredentialError when there is none to be had
   */
  async authorize(scope: string, signal?: AbortSignal): Promise<Authorization> {
    const login = await this.#provider.login(signal);
    try {
      return await this.#with(login, scope, signal);
    } catch (error) {
      if (!(error instanceof AccessRefusedError)) throw error;
      const next = await this.#renewed(login, signal);
      if (next === undefined) throw error;
      return this.#with(next, scope, signal);
    }
  }

  /**
   * Decides after a 401 or 403 whether the request is worth repeating, and with what: a token that may have
   * expired is fetched again, a login that can be renewed is renewed. Undefined means that the refusal is final.
   */
  async afterRefusal(
    sent: Authorization,
    status: number,
    challenge: string | null,
    signal?: AbortSignal,
  ): Promise<Authorization | undefined> {
    const { login, scope, token } = sent;
    if (status === 401 && challenge !== null) await this.learn(challenge, scope, signal);
    if (sent.header === undefined) {
      const first = await this.authorize(scope, signal);
      return first.header === undefined ? undefined : first;
    }
    if (this.#denial(login, scope) !== undefined) return undefined;
    if (token !== undefined && (!token.fresh || this.#tokenKey(sent) !== token.key)) {
      this.#tokens.drop(token.key, token.cached);
      return this.authorize(scope, signal);
    }
    // A fresh token that is refused has no right; only a login that was sent as it is may have expired.
    if (token !== undefined) return undefined;
    const next = await this.#renewed(login, signal);
    return next === undefined ? undefined : this.#with(next, scope, signal);
  }

  /** Remembers that a renewed credential was refused all the same. */
  refusedForGood({ login, scope }: Authorization): void {
    this.#deny(login, scope, undefined);
  }

  /** Forgets such a memory: the credential works. */
  accepted({ login, scope }: Authorization): void {
    if (this.#denials.size > 0) this.#denials.delete(this.#denialKey(login, scope));
  }

  async #with(login: Login, scope: string, signal?: AbortSignal): Promise<Authorization> {
    const common = { login, scope, credential: this.#name(login) };
    const scheme = this.#scheme;
    if (login.kind === 'bearer' && scheme.kind !== 'open' && scheme.kind !== 'other') {
      return { ...common, header: bearerHeader(login.token), secrets: secretsOf(login) };
    }
    if (login.kind === 'basic' && scheme.kind === 'basic') {
      const header = basicAuthorization(login.username, login.password);
      return { ...common, header, secrets: secretsOf(login) };
    }
    if (scheme.kind !== 'bearer') return { ...common, header: undefined, secrets: [] };

    const known = this.#denial(login, scope);
    if (known?.error !== undefined) throw known.error;
    const key = this.#tokenKey(common);
    const exchange = () =>
      this.#options.exchange((alive) =>
        requestToken(this.#transport, scheme.service, this.#joined(scope), login, {
          now: this.#options.now,
          signal: alive,
        }),
      );
    try {
      const { cached, fresh } = await this.#tokens.get(key, exchange, signal);
      const secrets = [...secretsOf(login), cached.token];
      return { ...common, header: bearerHeader(cached.token), secrets, token: { key, cached, fresh } };
    } catch (error) {
      if (error instanceof AccessRefusedError) this.#deny(login, scope, error);
      throw error;
    }
  }

  /** Another login than the refused one, if there is any. */
  async #renewed(refused: Login, signal?: AbortSignal): Promise<Login | undefined> {
    // Somebody else's request may have renewed it, or an operator may have replaced it.
    const current = await this.#provider.login(signal);
    if (this.#name(current) !== this.#name(refused)) return current;
    if (!this.#provider.refused(current)) return undefined;
    const next = await this.#provider.login(signal);
    return this.#name(next) === this.#name(refused) ? undefined : next;
  }

  #joined(scope: string): string {
    return joinScopes(scope, this.#demandedScopes.get(scope));
  }

  #tokenKey({ scope, credential }: { readonly scope: string; readonly credential: string }): string {
    if (this.#scheme.kind !== 'bearer') return '';
    const { realm, service } = this.#scheme.service;
    return JSON.stringify([realm.href, service ?? null, this.#joined(scope), credential]);
  }

  #name(login: Login): string {
    const known = this.#names.get(login);
    if (known !== undefined) return known;
    const parts =
      login.kind === 'anonymous'
        ? []
        : login.kind === 'basic'
          ? [login.username, login.password.reveal()]
          : [login.token.reveal()];
    const name = createHash('sha256')
      .update(JSON.stringify([login.kind, ...parts]))
      .digest('base64');
    this.#names.set(login, name);
    return name;
  }

  #denialKey(login: Login, scope: string): string {
    return `${this.#name(login)} ${scope}`;
  }

  #denial(login: Login, scope: string): Denial | undefined {
    const denial = this.#denials.get(this.#denialKey(login, scope));
    const leftMs = (denial?.until ?? 0) - this.#options.now();
    // A clock that was set back must not prolong it.
    return leftMs > 0 && leftMs <= DENIAL_MEMORY_MS ? denial : undefined;
  }

  #deny(login: Login, scope: string, error: AccessRefusedError | undefined): void {
    this.#denials.set(this.#denialKey(login, scope), {
      until: this.#options.now() + DENIAL_MEMORY_MS,
      error,
    });
  }
}

interface Denial {
  readonly until: number;
  /** What the token endpoint said, when it was the one that refused. */
  readonly error: AccessRefusedError | undefined;
}

function bearerHeader(token: Secret<string>): Secret<string> {
  return new Secret(`Bearer ${token.reveal()}`);
}
