import type { ImageRow, NewImage, WorkspaceId } from '../database/index.ts';
import { type Bytes, encodeFields } from './encoding.ts';
import { SecretError } from './errors.ts';
import { equalBytes, hmac } from './primitives.ts';
import type { WorkspaceKey } from './workspace-keys.ts';

/** What of an image its seal is over: what it is called, what the registry has, and which index tells its tree. */
export type SealedImage = Pick<
  NewImage,
  'reference' | 'platform' | 'registry' | 'repository' | 'manifestDigest' | 'indexDigest' | 'indexArtifact'
>;

// Keeps these seals apart from those of secrets, which are made with the same key.
const LABEL = 'imgcred/1 image index';

/** Authenticates which index an image has. docs/decisions/0011-index-seal.md */
export function sealOfImage(key: WorkspaceKey, workspaceId: WorkspaceId, image: SealedImage): Bytes {
  const fields = [
    LABEL,
    workspaceId,
    image.reference,
    image.platform,
    image.registry,
    image.repository,
    image.manifestDigest,
    image.indexDigest,
    image.indexArtifact ?? '',
  ];
  return hmac(key.seal, encodeFields(fields));
}

/** @throws SecretError CORRUPT for a row that was not written by the holder of the key */
export function checkImageSeal(key: WorkspaceKey, image: ImageRow): void {
  const seal = sealOfImage(key, image.workspaceId, image);
  if (image.indexSeal !== undefined && equalBytes(seal, image.indexSeal)) return;
  throw new SecretError(
    'CORRUPT',
    `the stored image ${image.reference} was changed, or was not registered here: its index is not used`,
    { hint: 'register it again with `imgcred image add`' },
  );
}
