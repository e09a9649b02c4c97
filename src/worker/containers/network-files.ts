import { readFileSync, writeFileSync } from 'node:fs';
import type { ContainerPaths } from './container-files.ts';
import type { NetworkMode } from './container-options.ts';

/** Writes /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as its network needs them. */
export function writeNetworkFiles(paths: ContainerPaths, hostname: string, network: NetworkMode): void {
  const own = `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t${hostname}\n`;
  const hosts =
    network === 'host' ? `${withNewline(readOptional('/etc/hosts'))}127.0.1.1\t${hostname}\n` : own;
  // The process may not be root in its container, and all may read these.
  const write = (path: string, text: string) => writeFileSync(path, text, { mode: 0o644 });
  write(paths.hosts, hosts);
  write(paths.hostname, `${hostname}\n`);
  write(paths.resolvConf, network === 'host' ? readOptional('/etc/resolv.conf') : '');
}

function withNewline(text: string): string {
  return text === '' || text.endsWith('\n') ? text : `${text}\n`;
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
