import { normalizeRegistryHost } from '../reference/index.ts';
import { CredentialError } from './error.ts';
import type { CredentialProvider, CredentialType, Login } from './provider.ts';

/** A provider whose credentials can be replaced while mounts and clients hold on to it. */
export class RotatingProvider implements CredentialProvider {
  readonly registry: string;
  #current: CredentialProvider;
  /** Who gave which login, so that a refusal reaches the one that can do something about it. */
  readonly #givenBy = new WeakMap<Login, CredentialProvider>();

  constructor(initial: CredentialProvider) {
    this.registry = initial.registry;
    this.#current = initial;
  }

  get type(): CredentialType {
    return this.#current.type;
  }

  /**
   * From now on logins come from `next`.
   *
   * @throws CredentialError `INVALID_CREDENTIALS` when it is for another registry
   */
  replace(next: CredentialProvider): void {
    if (normalizeRegistryHost(next.registry) !== normalizeRegistryHost(this.registry)) {
      const reason = `credentials for ${next.registry} cannot replace those for this registry`;
      throw new CredentialError('INVALID_CREDENTIALS', this.registry, reason);
    }
    this.#current = next;
  }

  async login(signal?: AbortSignal): Promise<Login> {
    const provider = this.#current;
    const login = await provider.login(signal);
    this.#givenBy.set(login, provider);
    return login;
  }

  refused(login: Login): boolean {
    const giver = this.#givenBy.get(login);
    // Replaced since: the next login is another one, whatever the old provider thinks.
    if (giver !== undefined && giver !== this.#current) return true;
    return this.#current.refused(login);
  }
}
