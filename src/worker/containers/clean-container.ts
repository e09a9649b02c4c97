import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { systemErrorCode } from '../../errors/index.ts';
import { readMountTable, SystemCallError, unmount } from '../../filesystem/index.ts';
import { cgroupProcesses, killCgroup, removeCgroup } from './cgroup.ts';
import {
  type ContainerPaths,
  type ContainerState,
  containerPaths,
  type ProcessIdentity,
  readState,
} from './container-files.ts';
import { ContainerError } from './errors.ts';
import { identifyProcess, isRunning, mountNamespace, mountTargets } from './process-identity.ts';

const LOOK_AGAIN_MS = 5;

/**
 * Ends whatever runs of the container in `directory`, and removes what is left of it: processes, control group,
 * mounts, the directory. It needs neither the supervisor nor the runtime, may be called again, and does nothing
 * where nothing is.
 * @param options.timeoutMs how long killed processes may take to end
 * @throws ContainerError when a process does not end
 */
export async function cleanContainer(directory: string, options: { timeoutMs?: number } = {}): Promise<void> {
  const paths = containerPaths(directory);
  if (!existsSync(directory)) return;
  const state = readState(paths);
  if (state !== undefined) await endProcesses(state, paths, Date.now() + (options.timeoutMs ?? 10_000));
  unmountBelow(directory);
  await rm(directory, { recursive: true, force: true, maxRetries: 3 });
}

async function endProcesses(state: ContainerState, paths: ContainerPaths, deadline: number): Promise<void> {
  const directory = realpathSync(paths.directory);
  // The container first: its supervisor then sees it end, records that and takes everything down in order.
  const first = state.process ?? containerProcess(state, paths.pid);
  if (first !== undefined) kill(first);
  else kill(state.supervisor);
  const orderly = Math.min(deadline, Date.now() + 3_000);
  while (isRunning(state.supervisor) && Date.now() < orderly) await Bun.sleep(LOOK_AGAIN_MS);
  kill(state.supervisor);
  for (;;) {
    const left = remaining(state, directory);
    if (state.cgroup !== undefined) killCgroup(state.cgroup.mode, state.cgroup.path);
    for (const identity of left) kill(identity);
    const gone = state.cgroup === undefined || removeCgroup(state.cgroup.mode, state.cgroup.path);
    if (left.length === 0 && gone) return;
    if (Date.now() > deadline) {
      throw new ContainerError(
        `processes of a container don't end: ${left.map(({ pid }) => pid).join(', ')}`,
        {
          hint: 'a process that waits for a disk or a mount ends when that answers; clean up again then',
        },
      );
    }
    await Bun.sleep(LOOK_AGAIN_MS);
  }
}

/** The supervisor, what shares its mount name space (the runtime), the container's first process, its control group. */
function remaining(state: ContainerState, directory: string): ProcessIdentity[] {
  const found = new Map<number, ProcessIdentity>();
  const add = (identity: ProcessIdentity | undefined) => {
    if (identity !== undefined && isRunning(identity)) found.set(identity.pid, identity);
  };
  add(state.supervisor);
  add(state.process);
  if (state.cgroup !== undefined) {
    for (const pid of cgroupProcesses(state.cgroup.mode, state.cgroup.path)) add(identifyProcess(pid));
  }
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    if (state.mountNamespace !== undefined && mountNamespace(pid) === state.mountNamespace) {
      const identity = identifyProcess(pid);
      // A name space's number is used again after its end, by processes that are none of our business: only in
      // ours is something mounted in the container's directory.
      if (mountTargets(pid).some((target) => target.startsWith(`${directory}/`))) add(identity);
    }
  }
  return [...found.values()];
}

/** The process that the runtime wrote down, if the supervisor died before it could record it. */
function containerProcess(state: ContainerState, pidFile: string): ProcessIdentity | undefined {
  try {
    const identity = identifyProcess(Number(readFileSync(pidFile, 'utf8').trim()));
    return identity !== undefined && identity.startTime >= state.supervisor.startTime ? identity : undefined;
  } catch {
    return undefined;
  }
}

function kill(identity: ProcessIdentity): void {
  if (!isRunning(identity)) return;
  try {
    process.kill(identity.pid, 'SIGKILL');
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}

function unmountBelow(directory: string): void {
  for (const { target } of readMountTable().reverse()) {
    if (target !== directory && !target.startsWith(`${directory}/`)) continue;
    try {
      unmount(target, { detach: true });
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== 'EINVAL') throw error;
    }
  }
}
