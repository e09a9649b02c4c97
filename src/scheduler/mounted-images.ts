import { type Database, type ImageId, isId, type WorkerId } from '../database/index.ts';
import type { MountedImage } from '../protocol/index.ts';
import type { Fleet } from './fleet.ts';

// Between the order and the mount access is proved, at a registry that may be slow.
const UNDER_WAY_MS = 180_000;

/**
 * Keeps what workers have mounted for no container. The worker of the scheduler's own process is believed. Another one
 * has what was ordered for it here; of what it says itself only what is known already stays: else whoever runs a worker
 * could name any image, and would be given what opens it.
 */
export class MountedImages {
  readonly #database: Database;
  readonly #fleet: Fleet;
  readonly #now: () => number;
  // What was ordered and is not named as mounted yet, since when.
  readonly #underWay = new Map<WorkerId, Map<ImageId, number>>();

  constructor(database: Database, fleet: Fleet, now: () => number) {
    this.#database = database;
    this.#fleet = fleet;
    this.#now = now;
  }

  /** A worker is being given an image to mount or to pin. */
  ordered(workerId: WorkerId, imageId: ImageId): void {
    const underWay = this.#underWay.get(workerId) ?? new Map<ImageId, number>();
    this.#underWay.set(workerId, underWay.set(imageId, this.#now()));
    this.#database.mountedImages.add(workerId, [imageId]);
  }

  /** A worker says what it has mounted. */
  note(workerId: WorkerId, mounted: readonly MountedImage[]): void {
    const { mountedImages } = this.#database;
    const known = mountedImages.of(workerId);
    const named = new Set(mounted.map(({ image_id }) => image_id));
    const gone = known.filter((imageId) => !named.has(imageId) && !this.#isUnderWay(workerId, imageId));
    if (gone.length > 0) mountedImages.remove(workerId, gone);
    for (const imageId of known) if (named.has(imageId)) this.#underWay.get(workerId)?.delete(imageId);
    if (!this.#fleet.isOwn(workerId)) return;
    const fresh = [...named].filter((imageId) => isId('img', imageId)).filter((id) => !known.includes(id));
    if (fresh.length > 0) mountedImages.add(workerId, fresh);
  }

  #isUnderWay(workerId: WorkerId, imageId: ImageId): boolean {
    const since = this.#underWay.get(workerId)?.get(imageId);
    if (since !== undefined && this.#now() - since < UNDER_WAY_MS) return true;
    this.#underWay.get(workerId)?.delete(imageId);
    return false;
  }
}
