import type { Secret } from '../credentials/index.ts';
import type { MountRequest, PlainMountRequest } from '../mounts/index.ts';
import type { ImageRequest } from '../protocol/index.ts';

/** What of a request for an image says what is mounted. */
export type ImageUse = Pick<ImageRequest, 'workspace_id' | 'image'> & {
  readonly max_fetch_bytes?: number | undefined;
};

/** Where an image is mounted, and the index file that it is served by. */
export type MountPlace = Pick<MountRequest, 'mount_id' | 'mountpoint' | 'index_path'>;

/** Asks a mount server for an image, without what opens it: the image's config is not its business. */
export function plainMountRequest(use: ImageUse, place: MountPlace): PlainMountRequest {
  const { workspace_id, max_fetch_bytes } = use;
  const { id, reference, registry, repository, manifest_digest, index_digest } = use.image;
  return {
    ...place,
    workspace_id,
    image: { id, reference, registry, repository, manifest_digest, index_digest },
    ...(max_fetch_bytes === undefined ? {} : { max_fetch_bytes }),
  };
}

/** The same with what opens the image, and with what its earlier starts touched. */
export function mountRequest(
  plain: PlainMountRequest,
  credential: Secret<string> | undefined,
  trace?: string,
): MountRequest {
  return {
    ...plain,
    ...(credential === undefined ? {} : { image_credentials: credential.reveal() }),
    ...(trace === undefined ? {} : { trace }),
  };
}
