import { type Digest, digestAlgorithm, digestHex } from '../../reference/index.ts';
import { NotAnImageError, RegistryError } from '../errors.ts';
import { type Descriptor, MANIFEST_LIMIT, parseJson, parseManifest } from '../manifest.ts';

export const INDEX_MEDIA_TYPE = 'application/vnd.oci.image.index.v1+json';

/**
 * The tag under which a registry without the referrers API keeps the list of what refers to a manifest.
 * @see distribution-spec, "Referrers Tag Schema"
 */
export function referrersTag(subject: Digest): string {
  return `${digestAlgorithm(subject)}-${digestHex(subject).slice(0, 64)}`;
}

/** The descriptors in a list of referrers. @throws CorruptError, NotAnImageError for what is no such list */
export function parseReferrers(bytes: Uint8Array, contentType: string, name: string): readonly Descriptor[] {
  const parsed = parseManifest(bytes, contentType, name);
  if (parsed.kind !== 'index') throw new NotAnImageError(`${name} is no list of referrers`);
  return parsed.index.manifests;
}

/**
 * The list with one more descriptor; everything that stands in it already is kept as it is, also what we don't
 * know. Undefined: it has the descriptor.
 *
 * @throws CorruptError, NotAnImageError when `list` is something else, RegistryError UNSUPPORTED when it is full
 */
export function withReferrer(
  list: { readonly bytes: Uint8Array; readonly mediaType: string } | undefined,
  added: Descriptor,
  name: string,
): Uint8Array<ArrayBuffer> | undefined {
  if (list === undefined) {
    return encode({ schemaVersion: 2, mediaType: INDEX_MEDIA_TYPE, manifests: [added] }, name);
  }
  const known = parseReferrers(list.bytes, list.mediaType, name);
  if (known.some(({ digest }) => digest === added.digest)) return undefined;
  const json = parseJson(list.bytes, name);
  const manifests = typeof json === 'object' && json !== null && 'manifests' in json ? json.manifests : [];
  return encode(
    { ...Object(json), manifests: [...(Array.isArray(manifests) ? manifests : []), added] },
    name,
  );
}

function encode(list: unknown, name: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(JSON.stringify(list));
  if (bytes.length <= MANIFEST_LIMIT) return bytes;
  throw new RegistryError('UNSUPPORTED', `${name} would become larger than registries take`, {
    hint: 'delete what refers to the image and is no longer needed',
  });
}
