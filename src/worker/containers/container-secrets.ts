import { Secret } from '../../credentials/index.ts';
import { ContainerInputError } from './errors.ts';
import { cleanTarget } from './spec-mounts.ts';

/** A workspace's secret as a container gets it. It passes through memory and a tmpfs only. */
export type ContainerSecret =
  | { readonly kind: 'env'; readonly name: string; readonly value: Secret<string> }
  | {
      readonly kind: 'file';
      /** Absolute path in the container, or a name: then it lies in /run/secrets. */
      readonly target: string;
      readonly value: Secret<Uint8Array>;
      /** Permission bits, 0o444 when absent. */
      readonly mode?: number | undefined;
      readonly uid?: number | undefined;
      readonly gid?: number | undefined;
    };

/**
 * Checks secrets before anything is made.
 * @throws ContainerInputError naming the target, never the value
 */
export function checkSecrets(secrets: readonly ContainerSecret[]): void {
  for (const secret of secrets) {
    if (secret.kind === 'file') {
      secretTarget(secret.target);
    } else if (!/^[^=\0]+$/.test(secret.name) || secret.value.reveal().includes('\0')) {
      throw new ContainerInputError("a secret can't become that environment variable", {
        hint: "its name must not be empty or hold '=', and its value must not hold a NUL byte: use a file then",
      });
    }
  }
}

export function secretTarget(target: string): string {
  return cleanTarget(target.startsWith('/') ? target : `/run/secrets/${target}`);
}

/** The form in which secrets cross the pipe to the supervisor: values in base64. */
export function serialiseSecrets(
  secrets: readonly ContainerSecret[],
): readonly Readonly<Record<string, unknown>>[] {
  return secrets.map((secret) =>
    secret.kind === 'env'
      ? { kind: 'env', name: secret.name, value: Buffer.from(secret.value.reveal()).toString('base64') }
      : {
          kind: 'file',
          target: secretTarget(secret.target),
          value: Buffer.from(secret.value.reveal()).toString('base64'),
          mode: secret.mode ?? 0o444,
          uid: secret.uid ?? 0,
          gid: secret.gid ?? 0,
        },
  );
}

/** The reverse of {@link serialiseSecrets}. @throws ContainerInputError */
export function deserialiseSecrets(values: unknown): ContainerSecret[] {
  if (!Array.isArray(values)) throw new ContainerInputError('the supervisor was given no list of secrets');
  return values.map((entry: unknown): ContainerSecret => {
    if (typeof entry === 'object' && entry !== null && 'kind' in entry && 'value' in entry) {
      const bytes = Buffer.from(String(entry.value), 'base64');
      if (entry.kind === 'env' && 'name' in entry) {
        return { kind: 'env', name: String(entry.name), value: new Secret(bytes.toString()) };
      }
      if (entry.kind === 'file' && 'target' in entry && 'mode' in entry && 'uid' in entry && 'gid' in entry) {
        return {
          kind: 'file',
          target: String(entry.target),
          value: new Secret(Uint8Array.from(bytes)),
          mode: Number(entry.mode),
          uid: Number(entry.uid),
          gid: Number(entry.gid),
        };
      }
    }
    throw new ContainerInputError('the supervisor was given a secret of an unknown kind');
  });
}
