import { loginKeys } from '../credentials/index.ts';
import type { SecretRow } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { formatReference, type Reference } from '../reference/index.ts';
import { AccessRefusedError } from '../registry/index.ts';
import { namingSecret } from '../secrets/index.ts';

/**
 * A registration's refusal with what to do about it: the secret that was refused, and how it gets a new value; or,
 * where no credential was given, the whole command that gives one.
 *
 * @param used the secret that the request named
 * @param known the secrets that the workspace has
 */
export function explainedRefusal(
  thrown: unknown,
  reference: Reference,
  used: SecretRow | undefined,
  known: readonly SecretRow[],
): unknown {
  if (!(thrown instanceof AccessRefusedError) || thrown.reason !== 'anonymous')
    return namingSecret(thrown, used);
  const { registry } = reference;
  const mine = known.find((secret) => secret.kind === 'registry' && secret.registry === registry);
  const how = mine === undefined ? `--creds-env ${loginKeys(registry).join(',')}` : `--secret ${mine.name}`;
  return new ImgcredError(thrown.code, thrown.message, {
    hint: `the image may be private: imgcred image add ${formatReference(reference)} ${how}`,
    cause: thrown,
  });
}
