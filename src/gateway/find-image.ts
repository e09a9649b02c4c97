import type { ImageRow, WorkspaceDatabase } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { formatPlatform, formatReference, hostPlatform, normalReference } from '../reference/index.ts';

/**
 * An image by its id, a prefix of it, or any spelling of the reference that it was registered with.
 *
 * @throws ImgcredError NOT_FOUND
 */
export function findImage(workspace: WorkspaceDatabase, named: string): ImageRow {
  if (/^img_/.test(named)) return workspace.images.get(named);
  const reference = formatReference(normalReference(named));
  const here = workspace.images.find(reference, formatPlatform(hostPlatform()));
  const found = here ?? workspace.images.find(reference);
  if (found !== undefined) return found;
  throw new ImgcredError('NOT_FOUND', `no image ${reference} is registered`, {
    hint: 'register it with `imgcred image add`, or see `imgcred image ls`',
  });
}
