import { readFileSync, readlinkSync } from 'node:fs';
import { parseMountTable } from '../../filesystem/index.ts';
import type { ProcessIdentity } from './container-files.ts';

/** Names a running process; undefined when it is gone or has ended and waits to be reaped. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid);
  return stat === undefined || stat.state === 'Z'
    ? undefined
    : { pid, startTime: stat.startTime, bootId: bootId() };
}

/** Whether that very process still runs, not another one with its number. */
export function isRunning(identity: ProcessIdentity): boolean {
  const now = identifyProcess(identity.pid);
  return now !== undefined && now.startTime === identity.startTime && now.bootId === identity.bootId;
}

export interface ProcessStat {
  readonly state: string;
  readonly startTime: number;
}

/** @see proc(5), `/proc/PID/stat` */
export function readStat(pid: number): ProcessStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The command's name stands in parentheses and may hold blanks and parentheses itself; field 3 follows.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  const startTime = fields[19];
  if (state === undefined || startTime === undefined) return undefined;
  return { state, startTime: Number(startTime) };
}

/** Names the mount name space of a process (`mnt:[4026531841]`); undefined when the process is gone or not ours to see. */
export function mountNamespace(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return undefined;
  }
}

/** What is mounted where in the mount name space of a process; nothing when it is gone or not ours to see. */
export function mountTargets(pid: number): string[] {
  try {
    return parseMountTable(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')).map(({ target }) => target);
  } catch {
    return [];
  }
}

let cachedBootId: string | undefined;

/** Another one each time that the machine is started. */
export function bootId(): string {
  cachedBootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return cachedBootId;
}
