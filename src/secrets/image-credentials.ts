import { createSecretName, detectCredentialType, marshalCredentials, Secret } from '../credentials/index.ts';
import type { SecretRow, WorkspaceId } from '../database/index.ts';
import { normalizeRegistryHost } from '../reference/index.ts';
import { SecretError } from './errors.ts';
import { equalTexts, sha256 } from './primitives.ts';
import type { CredentialProof } from './proven-images.ts';
import { normalizeRegistryValue } from './registry-value.ts';
import type { Actor, SecretStore } from './secret-store.ts';

const REPOSITORY_HASH_CHARACTERS = 8;
const MOST_SECRETS_A_REPOSITORY = 100;

/** A credential that was given with an image, and has been proved for that image already. */
export interface ImageCredentials {
  readonly registry: string;
  readonly repository: string;
  /** `{KEY: value}` as the user gave them. */
  readonly credentials: Readonly<Record<string, string>>;
}

/** What became of the credential that came with an image. */
export interface CredentialSecret {
  readonly secret: SecretRow;
  /**
   * `created`: the registry's first secret. `unchanged`: an existing secret holds this very credential.
   * `rotated`: it opens all images that use the existing secret, whose new version it is. `separate`: it does not,
   * so it became a secret of its own.
   */
  readonly outcome: 'created' | 'unchanged' | 'rotated' | 'separate';
}

/** Turns the credentials that come with images into secrets of their workspace. */
export class ImageCredentialSecrets {
  readonly #store: SecretStore;
  readonly #busy = new Map<WorkspaceId, Promise<unknown>>();

  constructor(store: SecretStore) {
    this.#store = store;
  }

  /**
   * Stores the credential of an image as a secret named after its registry, and never breaks an image that was
   * registered before: an existing secret gets the credential as its new version only if `verify` says that it
   * opens all images that use the secret; else the credential becomes a second secret, whose name ends in a short
   * hash of the repository. Undefined when the registry needs no credential.
   *
   * One at a time in each workspace, so that two registrations can't overtake each other.
   *
   * @throws CredentialError INVALID_CREDENTIALS; what `verify` throws, with nothing changed.
   */
  async createCredentialSecretIfNeeded(
    workspaceId: WorkspaceId,
    image: ImageCredentials,
    by: Actor,
    verify: CredentialProof,
  ): Promise<CredentialSecret | undefined> {
    const type = detectCredentialType(image.registry, image.credentials);
    if (type === 'public') return undefined;
    const given = new Secret(marshalCredentials(image.registry, type, image.credentials));
    return await this.#oneAtATime(workspaceId, async () => {
      for (const name of candidateNames(image)) {
        const separate = name !== createSecretName(image.registry);
        const existing = this.#store.find(workspaceId, name);
        if (existing === undefined) {
          const added = {
            name,
            value: given,
            kind: 'registry',
            registry: image.registry,
            credentialType: type,
          } as const;
          const secret = await this.#store.create(workspaceId, added, by, true);
          return { secret, outcome: separate ? 'separate' : 'created' };
        }
        // A secret of that name which the user made for something else is left alone.
        const registry = existing.registry;
        if (registry === undefined || !isSameRegistry(registry, image.registry)) continue;
        // With the registry spelt as the secret spells it, so that the same credential is the same text.
        const { value } = normalizeRegistryValue(registry, given);
        const same = await this.#store.holds(workspaceId, name, (current) =>
          equalTexts(current.reveal(), value.reveal()),
        );
        if (same) return { secret: existing, outcome: 'unchanged' };
        const secret = await this.#rotate(workspaceId, name, value, by, verify);
        if (secret !== undefined) return { secret, outcome: 'rotated' };
      }
      throw new SecretError('CONFLICT', `${image.registry}/${image.repository} has too many secrets`, {
        hint: 'delete those that are not needed with `imgcred secret rm`',
      });
    });
  }

  /** The secret with its new version, or undefined when the value does not open all images that use it. */
  async #rotate(
    workspaceId: WorkspaceId,
    name: string,
    value: Secret<string>,
    by: Actor,
    verify: CredentialProof,
  ): Promise<SecretRow | undefined> {
    try {
      return await this.#store.set(workspaceId, name, value, by, { verify });
    } catch (thrown) {
      if (thrown instanceof SecretError && thrown.code === 'CREDENTIALS_REFUSED') return undefined;
      throw thrown;
    }
  }

  async #oneAtATime<T>(workspaceId: WorkspaceId, work: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(workspaceId) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#busy.set(workspaceId, mine);
    try {
      return await mine;
    } finally {
      if (this.#busy.get(workspaceId) === mine) this.#busy.delete(workspaceId);
    }
  }
}

function isSameRegistry(one: string, other: string): boolean {
  return normalizeRegistryHost(one) === normalizeRegistryHost(other);
}

function* candidateNames(image: ImageCredentials): Generator<string> {
  const name = createSecretName(image.registry);
  yield name;
  const hash = Buffer.from(sha256(image.repository)).toString('hex').slice(0, REPOSITORY_HASH_CHARACTERS);
  yield `${name}-${hash}`;
  // Never a hash of the credential: a name is no secret, and a hash lets a password be guessed.
  for (let i = 2; i <= MOST_SECRETS_A_REPOSITORY; i++) yield `${name}-${hash}-${i}`;
}
