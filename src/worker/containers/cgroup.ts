import { existsSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import type { CgroupMode } from './host-facts.ts';
import { readOptional } from './optional-files.ts';

export const CGROUP_ROOT = '/sys/fs/cgroup';

/** The directories of one control group: one in version 2, one for each controller in version 1. */
export function cgroupDirectories(mode: CgroupMode, path: string, root: string = CGROUP_ROOT): string[] {
  if (mode === 'none') return [];
  if (mode === 'v2') return [join(root, path)].filter((directory) => existsSync(directory));
  return readdirSync(root)
    .map((controller) => join(root, controller, path))
    .filter((directory) => existsSync(directory));
}

/** How many processes the kernel killed in this group for its memory limit. */
export function oomKills(mode: CgroupMode, path: string, root: string = CGROUP_ROOT): number {
  if (mode === 'none') return 0;
  const file =
    mode === 'v2' ? join(root, path, 'memory.events') : join(root, 'memory', path, 'memory.oom_control');
  return parseOomKills(readOptional(file));
}

/** @see Linux `admin-guide/cgroup-v2.rst` (`memory.events`), `cgroup-v1/memory.rst` (`memory.oom_control`) */
export function parseOomKills(text: string): number {
  return Number(/^oom_kill ([0-9]+)$/m.exec(text)?.[1] ?? 0);
}

/** The processes of a group, its children's included, numbered as this process sees them. */
export function cgroupProcesses(mode: CgroupMode, path: string, root: string = CGROUP_ROOT): number[] {
  const found = new Set<number>();
  for (const directory of cgroupDirectories(mode, path, root)) {
    for (const group of [directory, ...childGroups(directory)]) {
      for (const line of readOptional(join(group, 'cgroup.procs')).split('\n')) {
        if (line !== '' && line !== '0') found.add(Number(line));
      }
    }
  }
  return [...found];
}

/** Kills all processes of a group at once where the kernel can (5.14, version 2), else one by one. */
export function killCgroup(mode: CgroupMode, path: string): void {
  if (mode === 'v2') {
    try {
      writeFileSync(join(CGROUP_ROOT, path, 'cgroup.kill'), '1');
      return;
    } catch {
      // An older kernel, or no such group: the loop below does it.
    }
  }
  for (const pid of cgroupProcesses(mode, path)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (systemErrorCode(error) !== 'ESRCH') throw error;
    }
  }
}

/** Removes a group with its children. @returns whether it is gone; a group with processes is not removed */
export function removeCgroup(mode: CgroupMode, path: string): boolean {
  let gone = true;
  for (const directory of cgroupDirectories(mode, path)) {
    for (const group of [...childGroups(directory).reverse(), directory]) {
      try {
        rmdirSync(group);
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT') gone = false;
      }
    }
  }
  return gone;
}

/** Parents before children. */
function childGroups(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
  } catch {
    return [];
  }
}
