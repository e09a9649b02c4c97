import { type Database, isId, type WorkerId } from '../database/index.ts';
import type { MountedImage } from '../protocol/index.ts';
import type { Fleet } from './fleet.ts';

/**
 * Keeps what a worker has mounted for no container. The worker of the scheduler's own process is believed. Of another
 * one only what is known already stays: else whoever runs a worker could name any image, and would be given what opens it.
 */
export function noteMounted(
  { mountedImages }: Database,
  workerId: WorkerId,
  mounted: readonly MountedImage[],
  fleet: Fleet,
): void {
  const known = mountedImages.of(workerId);
  const named = new Set(mounted.map(({ image_id }) => image_id));
  const gone = known.filter((imageId) => !named.has(imageId));
  if (gone.length > 0) mountedImages.remove(workerId, gone);
  if (!fleet.isOwn(workerId)) return;
  const fresh = [...named].filter((imageId) => isId('img', imageId)).filter((id) => !known.includes(id));
  if (fresh.length > 0) mountedImages.add(workerId, fresh);
}
