import { ImgcredError } from '../errors/index.ts';
import type { CreateContainer } from '../protocol/index.ts';
import type { Identity } from './identity.ts';

/** What a container may have anyway: to name one of these after dropping ALL asks for nothing more. */
export const HARMLESS_CAPABILITIES: ReadonlySet<string> = new Set(
  'CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT'.split(
    ' ',
  ),
);

/**
 * Refuses what reaches out of the container into the worker's machine, and so to the secrets of every workspace
 * (the data directory may lie there), to all but those who may see to the whole server anyway.
 *
 * @throws ImgcredError FORBIDDEN
 */
export function requireHostAccess(
  identity: Identity,
  { overrides }: Pick<CreateContainer, 'overrides'>,
): void {
  if (identity.role === 'admin' && identity.workspaceId === undefined) return;
  const bind = overrides.mounts?.find(({ type }) => type === 'bind');
  const capability = overrides.cap_add?.find(
    (name) => !HARMLESS_CAPABILITIES.has(name.toUpperCase().replace(/^CAP_/, '')),
  );
  if (bind === undefined && capability === undefined) return;
  const what =
    bind === undefined ? `the capability ${JSON.stringify(capability)}` : 'a directory of the host';
  throw new ImgcredError('FORBIDDEN', `${what} in a container is more than this token may ask for`, {
    hint: 'it gives away the machine that the container runs on: use an admin token that is not bound to a workspace',
  });
}
