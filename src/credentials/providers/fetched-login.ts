import { createHash } from 'node:crypto';
import type { CredentialProvider, CredentialType, Login } from '../provider.ts';
import type { FetchedLogin, LoginCache } from './login-cache.ts';

/** A provider whose login is fetched from the provider's own service, and again before it expires. */
export class FetchedLoginProvider implements CredentialProvider {
  readonly registry: string;
  readonly type: CredentialType;
  readonly #key: string;
  readonly #cache: LoginCache;
  readonly #fetchLogin: (signal: AbortSignal) => Promise<FetchedLogin>;

  /** @param identity everything that decides the login; kept as a digest only */
  constructor(
    registry: string,
    type: CredentialType,
    identity: readonly (string | undefined)[],
    cache: LoginCache,
    fetchLogin: (signal: AbortSignal) => Promise<FetchedLogin>,
  ) {
    this.registry = registry;
    this.type = type;
    this.#key = createHash('sha256').update(JSON.stringify(identity)).digest('base64');
    this.#cache = cache;
    this.#fetchLogin = fetchLogin;
  }

  login(signal?: AbortSignal): Promise<Login> {
    return this.#cache.get(this.#key, this.#fetchLogin, signal);
  }

  refused(login: Login): boolean {
    return this.#cache.refused(this.#key, login);
  }
}
