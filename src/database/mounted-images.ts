import type { Connection } from './connection.ts';
import { type ImageId, parseId, type WorkerId } from './identifiers.ts';
import { Columns } from './rows.ts';

const columns = new Columns('mounted_images');

/** Which images workers have mounted for no container. */
export class MountedImageRepository {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  of(workerId: WorkerId): ImageId[] {
    return this.#connection.all(
      'SELECT image_id FROM mounted_images WHERE worker_id = $workerId ORDER BY image_id',
      { workerId },
      (row) => parseId('img', columns.text(row, 'image_id')),
    );
  }

  /** Adds images that a worker has mounted; those that are not registered are passed over. */
  add(workerId: WorkerId, imageIds: readonly ImageId[]): void {
    this.#each(
      `INSERT OR IGNORE INTO mounted_images (worker_id, image_id)
         SELECT $workerId, id FROM images WHERE id = $imageId`,
      workerId,
      imageIds,
    );
  }

  remove(workerId: WorkerId, imageIds: readonly ImageId[]): void {
    this.#each(
      'DELETE FROM mounted_images WHERE worker_id = $workerId AND image_id = $imageId',
      workerId,
      imageIds,
    );
  }

  #each(sql: string, workerId: WorkerId, imageIds: readonly ImageId[]): void {
    if (imageIds.length === 0) return;
    this.#connection.transaction(() => {
      for (const imageId of imageIds) this.#connection.run(sql, { workerId, imageId });
    });
  }
}
