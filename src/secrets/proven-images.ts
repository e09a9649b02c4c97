import type { Secret } from '../credentials/index.ts';
import type { ImageRow, SecretRow, WorkspaceDatabase } from '../database/index.ts';
import { counted } from '../errors/index.ts';
import { SecretError } from './errors.ts';

/** Whether a value opens an image's registry for that image. */
export type CredentialProof = (value: Secret<string>, image: ImageRow) => Promise<boolean>;

/** How a new value of a registry's secret is proved before it becomes the current one; `none` is audited. */
export type Proof = { readonly verify: CredentialProof } | 'none';

/**
 * The images that a secret's new value has been proved for. An image may join them while the registry is asked
 * about the others: what makes the value the current one looks at `isComplete` in the same transaction.
 */
export class ProvenImages {
  readonly #images: WorkspaceDatabase['images'];
  readonly #secret: SecretRow;
  readonly #value: Secret<string>;
  readonly #proof: Proof;
  readonly #opened = new Set<string>();

  constructor(images: WorkspaceDatabase['images'], secret: SecretRow, value: Secret<string>, proof: Proof) {
    this.#images = images;
    this.#secret = secret;
    this.#value = value;
    this.#proof = proof;
  }

  /** Whether the value opens images, and none has joined that it was not tried with. */
  get verified(): boolean {
    return this.#opened.size > 0 && this.isComplete;
  }

  /** Whether nothing is left to prove now. */
  get isComplete(): boolean {
    return this.#proof === 'none' || this.#missing().length === 0;
  }

  /**
   * Tries the value with the images that it was not tried with yet.
   *
   * @throws SecretError CREDENTIALS_REFUSED; what the proof throws
   */
  async extend(): Promise<void> {
    if (this.#proof === 'none') return;
    const refusing: ImageRow[] = [];
    for (const image of this.#missing()) {
      if (await this.#proof.verify(this.#value, image)) this.#opened.add(keyOf(image));
      else refusing.push(image);
    }
    if (refusing.length === 0) return;
    throw new SecretError(
      'CREDENTIALS_REFUSED',
      `the new value of secret ${JSON.stringify(this.#secret.name)} does not open ${imageNames(refusing)}; the old one stays`,
      { hint: 'check the value, or skip the proof with --no-verify' },
    );
  }

  #missing(): ImageRow[] {
    return this.#images.usingSecret(this.#secret.id).filter((image) => !this.#opened.has(keyOf(image)));
  }
}

/** Some of the images' references, and how many more there are. */
export function imageNames(images: readonly ImageRow[]): string {
  const shown = images.slice(0, 3).map((image) => image.reference);
  return images.length > 3
    ? `${shown.join(', ')} and ${counted(images.length - 3, 'more image')}`
    : shown.join(', ');
}

// A tag that was registered again may lead to another manifest under the same id.
function keyOf(image: ImageRow): string {
  return `${image.id} ${image.manifestDigest}`;
}
