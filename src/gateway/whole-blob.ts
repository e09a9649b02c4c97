import type { Descriptor, RegistryClient } from '../registry/index.ts';

/**
 * A blob of a size that the caller has found bearable; its digest is checked.
 *
 * @throws CorruptError and what else the registry client throws
 */
export async function readWholeBlob(
  client: RegistryClient,
  repository: string,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(descriptor.size);
  let filled = 0;
  for await (const chunk of client.streamBlob(repository, descriptor, { signal })) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}
