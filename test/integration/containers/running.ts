import { expect } from 'bun:test';
import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Container,
  type ContainerExit,
  type ContainerRuntime,
  type CreateContainerOptions,
  createContainer,
} from '../../../src/worker/containers/index.ts';
import type { ContainerLab } from './rootfs.ts';

type Lab = Pick<ContainerLab, 'rootfs' | 'next'>;

/** A control group of the tests' own, so that they can tell that nothing is left. */
export const TEST_CGROUP_PARENT = `/imgcred-test-${process.pid}`;

export const SUPERVISOR_COMMAND = [process.execPath, join(import.meta.dir, 'supervisor-entry.ts')];

type Wanted = Partial<Omit<CreateContainerOptions, 'runtime'>>;

export function create(lab: Lab, runtime: ContainerRuntime, wanted: Wanted): Promise<Container> {
  return createContainer({
    ...lab.next(),
    lower: [lab.rootfs],
    image: {},
    options: {},
    runtime,
    supervisorCommand: SUPERVISOR_COMMAND,
    cgroupParent: TEST_CGROUP_PARENT,
    ...wanted,
  });
}

export interface RunResult {
  readonly exit: ContainerExit;
  readonly stdout: string;
  readonly stderr: string;
  readonly warnings: readonly string[];
}

/** Runs a container to its end and removes it. */
export async function run(lab: Lab, runtime: ContainerRuntime, wanted: Wanted): Promise<RunResult> {
  const container = await create(lab, runtime, wanted);
  try {
    const warnings = container.warnings();
    await container.start();
    const exit = await container.wait();
    return { exit, warnings, ...(await output(container)) };
  } finally {
    await container.delete();
  }
}

/** All that the container has written up to its end. */
export async function output(container: Container): Promise<{ stdout: string; stderr: string }> {
  const parts: Record<'stdout' | 'stderr', Uint8Array[]> = { stdout: [], stderr: [] };
  for await (const record of container.readLogs({ follow: true })) parts[record.stream].push(record.bytes);
  return { stdout: Buffer.concat(parts.stdout).toString(), stderr: Buffer.concat(parts.stderr).toString() };
}

/** Everything on this host that belongs to containers below `directory`: mounts, processes, control groups. */
export function leftovers(directory: string): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(directory));
  const processes = readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => {
      try {
        const inGroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(`${TEST_CGROUP_PARENT}/`);
        // One that has ended and waits to be reaped by process 1 has no program any more.
        return inGroup && existsSync(`/proc/${pid}/exe`);
      } catch {
        return false;
      }
    });
  return [...mounts, ...processes.map((pid) => `process ${pid}`), ...cgroups()];
}

function cgroups(): string[] {
  const root = '/sys/fs/cgroup';
  return ['', ...readdirSync(root)]
    .map((name) => join(root, name, TEST_CGROUP_PARENT))
    .filter((path) => existsSync(path))
    .flatMap((path) => readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()))
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Removes the tests' own control groups. */
function removeTestCgroups(): void {
  const root = '/sys/fs/cgroup';
  for (const path of ['', ...readdirSync(root)].map((name) => join(root, name, TEST_CGROUP_PARENT))) {
    if (existsSync(path)) rmdirSync(path);
  }
}

/** Ends a lab, in which nothing may be left of any container. */
export async function endLab(lab: ContainerLab): Promise<void> {
  try {
    expect(leftovers(lab.directory)).toEqual([]);
  } finally {
    await lab[Symbol.asyncDispose]();
    removeTestCgroups();
  }
}
