import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CGROUP_ROOT } from './cgroup.ts';
import { readOptional } from './optional-files.ts';

/**
 * Readies the kernel for the move of a process into a control group, which comes in some milliseconds. The first move
 * after a while waits until every processor has passed through the scheduler, some 10 ms; those that come within about
 * as long after it do not. This process is moved to where it is, which changes nothing, while its caller goes on.
 *
 * @see Linux `kernel/cgroup/cgroup.c` (`cgroup_threadgroup_rwsem`), `kernel/rcu/sync.c`
 */
export function expectCgroupMove(): void {
  const group = ownGroup();
  if (group === undefined) return;
  // Where it may not, the move that comes takes as long as ever.
  writeFile(join(CGROUP_ROOT, group, 'cgroup.procs'), String(process.pid), { flag: 'r+' }).catch(() => {});
}

let found: { readonly group: string | undefined } | undefined;

function ownGroup(): string | undefined {
  found ??= { group: parseOwnGroup(readOptional('/proc/self/cgroup')) };
  return found.group;
}

/**
 * A group that the process is in, by its directory below the root of all: of version 2, or of any controller.
 *
 * @param text of /proc/PID/cgroup
 * @see cgroups(7)
 */
export function parseOwnGroup(text: string): string | undefined {
  let found: string | undefined;
  for (const line of text.split('\n')) {
    const [, hierarchy, controllers = '', path = ''] = /^([0-9]+):([^:]*):(\/.*)$/.exec(line) ?? [];
    if (hierarchy === undefined) continue;
    // Beside version 1 nothing is moved in version 2.
    if (hierarchy === '0') found ??= path;
    else if (!controllers.startsWith('name=')) return join(controllers, path);
  }
  return found;
}
