import type { CredentialInUse } from '../database/index.ts';
import type { CredentialMark } from '../protocol/index.ts';

interface Delivery {
  readonly version: string;
  /** When it was sent; undefined once the worker has it. */
  readonly sentAt: number | undefined;
}

// A worker that tries a new credential against a slow registry takes a while to say that it has it.
const SEND_AGAIN_MS = 60_000;

/** How a version of a credential is named: it says nothing of the value. */
export function credentialVersion(
  secret: { readonly id: string; readonly version: number } | undefined,
): string {
  return secret === undefined ? 'none' : `${secret.id}@${secret.version}`;
}

/**
 * Which version of each image's credential each worker has been given. In memory only: a scheduler that starts
 * gives all of them again, and a worker ignores what it has.
 */
export class CredentialDeliveries {
  readonly #workers = new Map<string, Map<string, Delivery>>();
  readonly #asked = new Set<string>();

  /** A worker that registers has nothing. */
  reset(workerId: string): void {
    this.#workers.delete(workerId);
    this.#asked.delete(workerId);
  }

  /** Notes that a worker has said what it has mounted, since it registered. */
  asked(workerId: string): void {
    this.#asked.add(workerId);
  }

  hasAsked(workerId: string): boolean {
    return this.#asked.has(workerId);
  }

  /**
   * Notes what a worker has been given with a request, or says that it reads a mount with. Where it has the image
   * mounted already, that says nothing: a mount keeps what it has when what comes with a request is refused.
   */
  given(workerId: string, { image_id, version }: CredentialMark): void {
    const known = this.#of(workerId);
    if (!known.has(image_id)) known.set(image_id, { version, sentAt: undefined });
  }

  /** Notes what a worker says that it has taken over. */
  done(workerId: string, { image_id, version }: CredentialMark): void {
    this.#of(workerId).set(image_id, { version, sentAt: undefined });
  }

  /** What of `inUse` the worker has another version of, or has not said for long that it has it. */
  due(workerId: string, inUse: readonly CredentialInUse[], now: number): CredentialInUse[] {
    const known = this.#of(workerId);
    const wanted = new Set(inUse.map(({ imageId }) => imageId as string));
    for (const imageId of known.keys()) if (!wanted.has(imageId)) known.delete(imageId);
    return inUse.filter(({ imageId, secret }) => {
      const version = credentialVersion(secret);
      const delivery = known.get(imageId);
      if (delivery?.version === version) {
        const underWay = delivery.sentAt === undefined || now - delivery.sentAt < SEND_AGAIN_MS;
        if (underWay) return false;
      }
      return true;
    });
  }

  sent(workerId: string, { image_id, version }: CredentialMark, now: number): void {
    this.#of(workerId).set(image_id, { version, sentAt: now });
  }

  #of(workerId: string): Map<string, Delivery> {
    let known = this.#workers.get(workerId);
    if (known === undefined) {
      known = new Map();
      this.#workers.set(workerId, known);
    }
    return known;
  }
}
