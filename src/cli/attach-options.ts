import { ImgcredError } from '../errors/index.ts';
import type { Invocation, Options } from './command.ts';
import { CONNECTION_OPTIONS } from './context.ts';
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from './detach-keys.ts';

/** Options of the commands that join this terminal to a process in a container. */
export const ATTACH_OPTIONS = {
  'detach-keys': {
    value: 'KEYS',
    help: `keys that leave the container without ending it; empty for none (${DEFAULT_DETACH_KEYS})`,
  },
  'sig-proxy': { value: 'true|false', help: 'pass the signals that imgcred gets on to the container (true)' },
} satisfies Options;

const { short: _, ...workspace } = CONNECTION_OPTIONS.workspace;
/** The connection's options where `-w` is the working directory, as podman has it. */
export const CONNECTION_WITHOUT_W = { ...CONNECTION_OPTIONS, workspace } satisfies Options;

/** @throws ImgcredError USAGE */
export function detachKeysOf(invocation: Invocation): Uint8Array {
  return parseDetachKeys(invocation.text('detach-keys') ?? DEFAULT_DETACH_KEYS);
}

/** @throws ImgcredError USAGE */
export function signalsPassOn(invocation: Invocation): boolean {
  const text = invocation.text('sig-proxy') ?? 'true';
  if (text === 'true' || text === 'false') return text === 'true';
  throw new ImgcredError('USAGE', `--sig-proxy ${text}: must be true or false`);
}

/** The connection to a container broke: what it does now is not known here. */
export function connectionLost(id: string): ImgcredError {
  return new ImgcredError('SERVER_UNREACHABLE', `the connection to the container ${id} broke`, {
    hint: `it goes on where its worker does: see imgcred container show ${id}`,
  });
}
