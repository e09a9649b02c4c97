import { endedChild, readMountTable } from '../../filesystem/index.ts';
import { serialiseSecrets } from './container-secrets.ts';
import { encodeMessage, FrameDecoder } from './control-protocol.ts';
import type { HostFacts } from './host-facts.ts';
import { overlayOptions } from './overlay.ts';
import { resolveUser } from './passwd.ts';
import { identifyProcess } from './process-identity.ts';
import { resolveInRootfs } from './rootfs-path.ts';
import { buildRuntimeSpec } from './runtime-spec.ts';

/**
 * Runs what every container needs once for nothing, so that its code is compiled and the C library is loaded when the
 * instruction of a supervisor that was started ahead arrives. Touches nothing. Some milliseconds.
 */
export function warmUp(host: HostFacts): void {
  const identity = resolveUser('root:root', {
    passwd: 'root:x:0:0:root:/root:/bin/sh\n',
    group: 'root:x:0:\n',
  });
  const spec = buildRuntimeSpec({
    id: 'none',
    image: { Entrypoint: ['/bin/true'], Env: ['PATH=/bin'] },
    options: { mounts: [{ type: 'tmpfs', target: '/none' }] },
    identity,
    host,
    files: { hosts: '/none', hostname: '/none', resolvConf: '/none' },
    cgroupParent: '/none',
  });
  JSON.stringify(spec);
  overlayOptions({ lower: ['/none'], upper: '/none', work: '/none', merged: '/none' });
  resolveInRootfs('/', '/none/none');
  serialiseSecrets([]);
  new FrameDecoder().push(encodeMessage({ op: 'none' }));
  identifyProcess(process.pid);
  readMountTable();
  endedChild();
}
