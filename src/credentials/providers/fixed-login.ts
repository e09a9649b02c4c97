import type { CredentialProvider, CredentialType, Login } from '../provider.ts';

/** A provider whose login never changes: a refused one is refused for good. */
export class FixedLoginProvider implements CredentialProvider {
  readonly registry: string;
  readonly type: CredentialType;
  readonly #login: Login;

  constructor(registry: string, type: CredentialType, login: Login) {
    this.registry = registry;
    this.type = type;
    this.#login = login;
  }

  async login(signal?: AbortSignal): Promise<Login> {
    signal?.throwIfAborted();
    return this.#login;
  }

  refused(): boolean {
    return false;
  }
}
