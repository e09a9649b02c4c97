import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import { readWords, writable } from './optional-files.ts';

/** A group of version 2 that this process is in and may divide, as systemd's `Delegate=yes` gives it. */
export interface DelegatedGroup {
  /** Below the tree's root, with a leading slash. */
  readonly path: string;
  /** Those in which limits can be set for groups below. */
  readonly controllers: ReadonlySet<string>;
}

/** A group that distributes controllers to others can't hold processes itself: imgcred's own are in this one below. */
const OWN_PROCESSES = 'imgcred.processes';
const USED = ['cpu', 'cpuset', 'memory', 'pids'];

/**
 * The delegated group of this process; undefined where it may not write to its group, or shares it with processes
 * that are not imgcred's, which nobody else may move.
 * @param root where the version 2 tree is mounted
 * @param path this process's group
 */
export function findDelegatedGroup(root: string, path = ownGroup()): DelegatedGroup | undefined {
  if (path === undefined || path === '/' || path.startsWith('/..')) return undefined;
  if (basename(path) === OWN_PROCESSES) {
    const parent = dirname(path);
    const controllers = readWords(join(root, parent, 'cgroup.subtree_control'));
    return writable(join(root, parent)) ? { path: parent, controllers: new Set(controllers) } : undefined;
  }
  const directory = join(root, path);
  const files = ['', 'cgroup.procs', 'cgroup.subtree_control'];
  if (!files.every((name) => writable(join(directory, name)))) return undefined;
  if (readWords(join(directory, 'cgroup.procs')).some((pid) => Number(pid) !== process.pid)) return undefined;
  return { path, controllers: new Set(readWords(join(directory, 'cgroup.controllers'))) };
}

/**
 * Moves this process, before it starts others, out of the way: into a group below its delegated one, so that the
 * controllers can be given to the groups of containers. Does nothing where there is no such group.
 */
export function divideDelegatedGroup(root: string, group = findDelegatedGroup(root)): void {
  if (group === undefined) return;
  const directory = join(root, group.path);
  try {
    mkdirSync(join(directory, OWN_PROCESSES), { recursive: true });
    writeFileSync(join(directory, OWN_PROCESSES, 'cgroup.procs'), String(process.pid));
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return;
  }
  for (const controller of USED.filter((name) => group.controllers.has(name))) {
    try {
      writeFileSync(join(directory, 'cgroup.subtree_control'), `+${controller}`);
    } catch (error) {
      // Limits of this kind are refused then, by the facts that the supervisors read.
      if (systemErrorCode(error) === undefined) throw error;
    }
  }
}

/** @see cgroups(7), `/proc/PID/cgroup` */
function ownGroup(): string | undefined {
  return /^0::(\/.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
}
