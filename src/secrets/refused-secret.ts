import { loginKeys } from '../credentials/index.ts';
import type { SecretRow } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';

export type RefusedSecret = Pick<SecretRow, 'name' | 'registry' | 'credentialType'>;

/** A registry's refusal with the secret that it refused in its hint; anything else as it is. */
export function namingSecret(thrown: unknown, secret: RefusedSecret | undefined): unknown {
  if (secret === undefined || !(thrown instanceof ImgcredError) || thrown.code !== 'CREDENTIALS_REFUSED')
    return thrown;
  return new ImgcredError(thrown.code, thrown.message, {
    hint: hintWith(thrown.hint, secret),
    cause: thrown,
  });
}

/** A hint about a secret that its registry has refused: its name, and the command that rotates it. Never the value. */
export function hintWith(
  hint: string | undefined,
  { name, registry, credentialType }: RefusedSecret,
): string {
  const keys = loginKeys(registry ?? '', credentialType).join(',');
  const about = hint === undefined ? '' : `: ${hint}`;
  return `secret ${name}${about}; a new value for it: imgcred secret set ${name} --creds-env ${keys}`;
}
