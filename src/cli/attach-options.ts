import { ImgcredError } from '../errors/index.ts';
import type { Invocation, Options } from './command.ts';
import { CONNECTION_OPTIONS } from './context.ts';
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from './detach-keys.ts';
import { ANY, oneOf, optionValue } from './option-values.ts';

const SWITCH = oneOf('true', 'false');

/** Options of the commands that join this terminal to a process in a container. */
export const ATTACH_OPTIONS = {
  'detach-keys': {
    value: 'KEYS',
    takes: ANY,
    help: `keys that leave the container without ending it; empty for none (${DEFAULT_DETACH_KEYS})`,
  },
  'sig-proxy': {
    value: 'true|false',
    takes: SWITCH,
    help: 'pass the signals that imgcred gets on to the container (true)',
  },
} satisfies Options;

const { short: _, ...workspace } = CONNECTION_OPTIONS.workspace;
/** The connection's options where `-w` is the working directory, as podman has it. */
export const CONNECTION_WITHOUT_W = { ...CONNECTION_OPTIONS, workspace } satisfies Options;

/** @throws ImgcredError USAGE */
export function detachKeysOf(invocation: Invocation): Uint8Array {
  return parseDetachKeys(invocation.text('detach-keys') ?? DEFAULT_DETACH_KEYS);
}

export function signalsPassOn(invocation: Invocation): boolean {
  return optionValue(invocation, 'sig-proxy', SWITCH) !== 'false';
}

/** The connection to a container broke: what it does now is not known here. */
export function connectionLost(id: string): ImgcredError {
  return new ImgcredError('SERVER_UNREACHABLE', `the connection to the container ${id} broke`, {
    hint: `it goes on where its worker does: see imgcred container show ${id}`,
  });
}
