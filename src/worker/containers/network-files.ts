import { writeFileSync } from 'node:fs';
import type { ContainerPaths } from './container-files.ts';
import type { NetworkMode } from './container-options.ts';
import { readOptional } from './optional-files.ts';

/** Writes /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as its network needs them. */
export function writeNetworkFiles(paths: ContainerPaths, hostname: string, network: NetworkMode): void {
  const own = `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t${hostname}\n`;
  const hosts = network === 'host' ? withName(readOptional('/etc/hosts'), hostname) : own;
  // The process may not be root in its container, and all may read these.
  const write = (path: string, text: string) => writeFileSync(path, text, { mode: 0o644 });
  write(paths.hosts, hosts);
  write(paths.hostname, `${hostname}\n`);
  write(paths.resolvConf, network === 'host' ? readOptional('/etc/resolv.conf') : '');
}

/** The host's own table, and the container's name where it has another than the host. */
function withName(table: string, hostname: string): string {
  const known = table
    .split('\n')
    .some((line) => line.replace(/#.*/, '').split(/\s+/).slice(1).includes(hostname));
  if (known) return table;
  return `${table === '' || table.endsWith('\n') ? table : `${table}\n`}127.0.1.1\t${hostname}\n`;
}
