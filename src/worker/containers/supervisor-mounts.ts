import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import {
  becomeSubreaper,
  MOUNT_FLAGS,
  mount,
  readMountTable,
  SystemCallError,
  unmount,
  unshareMounts,
} from '../../filesystem/index.ts';
import type { ContainerManifest, ContainerPaths } from './container-files.ts';
import type { ContainerPlan } from './container-plan.ts';
import type { ContainerSecret } from './container-secrets.ts';
import { ContainerInputError } from './errors.ts';
import { type CgroupMode, type HostFacts, UNMAPPED, UNMAPPED_HINT } from './host-facts.ts';
import { mountOverlay } from './overlay.ts';
import type { RuntimeSpec, SpecProcess } from './runtime-spec.ts';

/** Places in the tmpfs that only the supervisor sees. */
export function privatePaths(paths: ContainerPaths) {
  return {
    bundle: join(paths.private, 'bundle'),
    secrets: join(paths.private, 'secrets'),
    runtimeState: join(paths.private, 'state'),
    runtimeLog: join(paths.private, 'runtime.log'),
    console: join(paths.private, 'console.sock'),
  } as const;
}

/**
 * Gives this process its own view of the mounts, and all descendants that lose their parents. The kernel takes its
 * mounts down with the supervisor and the container, however they end.
 */
export function enterOwnMounts(): void {
  unshareMounts();
  becomeSubreaper();
}

/** Mounts the root file system, and a tmpfs that only the supervisor sees. After {@link enterOwnMounts}. */
export function mountForContainer(paths: ContainerPaths, manifest: ContainerManifest, host: HostFacts): void {
  const needed = [paths.directory, ...manifest.lower, ...bindSources(manifest)];
  detachForeignMounts(needed);
  if (manifest.runtime.name === 'crun') showCgroupsThatCrunTakes(host.cgroup.mode);
  mountPrivate(paths.private);
  for (const directory of [
    privatePaths(paths).bundle,
    privatePaths(paths).secrets,
    privatePaths(paths).runtimeState,
  ]) {
    mkdirSync(directory, { mode: 0o700 });
  }
  mountOverlay(
    { lower: manifest.lower, upper: paths.upper, work: paths.work, merged: paths.merged },
    { userXattr: manifest.userXattr || !host.userNamespace.initial },
  );
}

/** Lets go of the private mounts, the root file system first, so that its layers are free when the exit is told. */
export function unmountContainer(paths: ContainerPaths): void {
  for (const target of [paths.merged, paths.private]) {
    try {
      unmount(target, { detach: true });
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== 'EINVAL') throw error;
    }
  }
}

/**
 * Writes the bundle's config.json, with root file system and secrets, to the private tmpfs.
 * @returns the process as the runtime gets it, its secret variables included
 */
export function writeBundle(
  paths: ContainerPaths,
  { spec, filters }: Pick<ContainerPlan, 'spec' | 'filters'>,
  secrets: readonly ContainerSecret[],
): SpecProcess {
  const { seccomp } = spec.linux;
  const places = privatePaths(paths);
  const env = new Map(spec.process.env.map((entry) => [entry.slice(0, entry.indexOf('=')), entry]));
  const mounts = [...spec.mounts];
  secrets.forEach((secret, number) => {
    if (secret.kind === 'env') {
      env.set(secret.name, `${secret.name}=${secret.value.reveal()}`);
      return;
    }
    const source = join(places.secrets, String(number));
    writeFileSync(source, secret.value.reveal(), { mode: 0o600, flag: 'wx' });
    giveSecret(source, secret);
    chmodSync(source, secret.mode ?? 0o444);
    mounts.push({
      destination: secret.target,
      type: 'bind',
      source,
      options: ['bind', 'rprivate', 'nosuid', 'nodev', 'noexec', 'ro'],
    });
  });
  const complete: RuntimeSpec = {
    ...spec,
    root: { ...spec.root, path: paths.merged },
    process: { ...spec.process, env: [...env.values()] },
    mounts,
    annotations: { ...spec.annotations, ...(seccomp && filters?.annotations(seccomp)) },
  };
  writeFileSync(join(places.bundle, 'config.json'), JSON.stringify(complete), { mode: 0o600 });
  return complete.process;
}

function giveSecret(path: string, { target, uid = 0, gid = 0 }: ContainerSecret & { kind: 'file' }): void {
  try {
    chownSync(path, uid, gid);
  } catch (error) {
    if (systemErrorCode(error) !== 'EINVAL') throw error;
    throw new ContainerInputError(`the secret at ${target} can't belong to ${uid}:${gid}: ${UNMAPPED}`, {
      hint: UNMAPPED_HINT,
    });
  }
}

function bindSources(manifest: ContainerManifest): string[] {
  return (manifest.options.mounts ?? []).flatMap((wanted) => (wanted.type === 'bind' ? [wanted.source] : []));
}

// A name space of its own starts with a copy of all mounts, those of other containers' images too: they would
// stay busy for as long as this container runs.
function detachForeignMounts(needed: readonly string[]): void {
  for (const { target, type } of readMountTable().reverse()) {
    if (type !== 'fuse' && !type.startsWith('fuse.')) continue;
    if (needed.some((path) => path === target || path.startsWith(`${target}/`))) continue;
    try {
      unmount(target, { detach: true });
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
    }
  }
}

// crun refuses to work where the version 2 tree beside version 1 has a controller. It looks for that tree at its
// usual place; an empty file system over it, seen by nobody else, leaves version 1, which has the limits. It also
// refuses to work where nothing is mounted for control groups, even when it is told to use none.
function showCgroupsThatCrunTakes(mode: CgroupMode): void {
  const flags = MOUNT_FLAGS.noSuid | MOUNT_FLAGS.noDev;
  if (mode === 'hybrid') mount('tmpfs', '/sys/fs/cgroup/unified', 'tmpfs', flags, 'size=64k,mode=755');
  if (mode === 'none') mount('tmpfs', '/sys/fs/cgroup', 'tmpfs', flags, 'size=64k,mode=755');
}

function mountPrivate(target: string): void {
  const flags = MOUNT_FLAGS.noSuid | MOUNT_FLAGS.noDev | MOUNT_FLAGS.noExec;
  try {
    // What is in it must not reach a swap device (Linux 6.4).
    mount('tmpfs', target, 'tmpfs', flags, 'mode=700,noswap');
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errno !== 'EINVAL') throw error;
    mount('tmpfs', target, 'tmpfs', flags, 'mode=700');
  }
}
