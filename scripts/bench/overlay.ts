import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { dropCaches, inOwnNamespace, type Measured, measured, output } from './mark.ts';

const OPTIONS = {
  ociVersion: '1.0.2',
  root: { path: 'merged' },
  mounts: [
    { destination: '/proc', type: 'proc', source: 'proc' },
    { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
  ],
  linux: { namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })) },
};

/** The bare minimum: overlayfs over a tree that is unpacked already, and crun, to the command's end. */
export async function runOnOverlay(tree: string, scratch: string, command: readonly string[]): Promise<Measured> {
  const bundle = mkdtempSync(path.join(scratch, 'bundle-'));
  for (const name of ['upper', 'work', 'merged']) mkdirSync(path.join(bundle, name));
  const config = {
    ...OPTIONS,
    process: { user: { uid: 0, gid: 0 }, args: command, env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], cwd: '/' },
  };
  await Bun.write(path.join(bundle, 'config.json'), JSON.stringify(config));
  const script = [
    `cd ${bundle}`,
    `mount -t overlay overlay -o lowerdir=${tree},upperdir=upper,workdir=work merged`,
    `crun --root ${bundle}/state --cgroup-manager=disabled run bench-${path.basename(bundle)}`,
    'umount merged',
  ];
  try {
    return await measured(inOwnNamespace(['sh', '-ec', script.join('\n')]));
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
}

/**
 * Bytes of a tree's files that a command reads, as pages that it leaves in the page cache: so the kernel's own
 * read-ahead counts, as it does through a mount.
 */
export async function bytesRead(tree: string, command: readonly string[]): Promise<number> {
  await dropCaches();
  await output(['chroot', tree, ...command]);
  const resident = await output([
    'sh',
    '-c',
    `find ${tree} -xdev -type f -size +0 -print0 | xargs -0 fincore --bytes --noheadings --raw --output RES | awk '{ sum += $1 } END { printf "%d", sum }'`,
  ]);
  return Number(resident);
}
