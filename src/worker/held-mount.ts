import { closeSync } from 'node:fs';
import type { Secret } from '../credentials/index.ts';
import type { PlainMountRequest } from '../mounts/index.ts';

/** What a mount reads with. */
export interface Opening {
  /** Undefined for a public image, or where it was taken away. */
  readonly credential: Secret<string> | undefined;
  /** Undefined where that is not known. */
  readonly version: string | undefined;
}

/**
 * A mount, its users, and what opens it. Two tags of one image share a mount, and may have secrets of their own: the
 * mount reads with the one that came last, and with another's when that one's users are gone or it is taken away.
 */
export class HeldMount {
  /** Whether the server has ever said that it is there. */
  mounted: boolean;
  /** A duplicate of the server's /dev/fuse descriptor: with it the mount survives its server. */
  descriptor: number | undefined;
  /** User → the id of the image that it uses. */
  readonly #users = new Map<string, string>();
  readonly #openings = new Map<string, Opening>();
  #current: Opening = { credential: undefined, version: undefined };

  constructor(
    readonly request: PlainMountRequest,
    mounted = false,
  ) {
    this.mounted = mounted;
  }

  get users(): string[] {
    return [...this.#users.keys()];
  }

  /** The ids of the images that it is used as. */
  get images(): ReadonlySet<string> {
    return new Set(this.#users.values());
  }

  /** The same for those users that are no containers: they have a colon in their names. */
  get ownImages(): ReadonlySet<string> {
    const own = [...this.#users].filter(([user]) => user.includes(':'));
    return new Set(own.map(([, imageId]) => imageId));
  }

  /** What it reads with now. */
  get current(): Opening {
    return this.#current;
  }

  add(user: string, imageId: string): void {
    this.#users.set(user, imageId);
  }

  /** @returns whether anybody is left */
  remove(user: string): boolean {
    this.#users.delete(user);
    for (const imageId of [...this.#openings.keys()])
      if (!this.images.has(imageId)) this.#openings.delete(imageId);
    return this.#users.size > 0;
  }

  /** Which version opens it as this image, as far as is known. */
  versionOf(imageId: string): string | undefined {
    return this.#openings.get(imageId)?.version;
  }

  /** Notes what opens it as this image, and that it reads with that. */
  opened(imageId: string, opening: Opening): void {
    this.#openings.set(imageId, opening);
    this.#current = opening;
  }

  /** Notes that nothing opens it as this image any more. */
  closed(imageId: string, version: string): void {
    this.#openings.set(imageId, { credential: undefined, version });
  }

  /** What it should read with instead of what it reads with now; undefined where that is right. */
  get better(): Opening | undefined {
    const openings = [...this.#openings.values()];
    if (openings.includes(this.#current) || openings.length === 0) return undefined;
    return openings.findLast(({ credential }) => credential !== undefined) ?? openings[0];
  }

  /** It reads with this now, which opens it as one of its images. */
  reads(opening: Opening): void {
    this.#current = opening;
  }

  /** Gives the duplicate of the descriptor up. */
  letGo(): void {
    if (this.descriptor !== undefined) closeSync(this.descriptor);
    this.descriptor = undefined;
  }
}
