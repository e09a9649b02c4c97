import fs from 'node:fs';

/**
 * A process as a name that no later process bears: pid, start time in clock ticks since boot, boot. It marks
 * leases and temporary files, so that those of the dead can be told from those of the living.
 */
export function processIdentity(pid: number = process.pid): string | undefined {
  const startTime = processStartTime(pid);
  return startTime === undefined ? undefined : `${pid}-${startTime}-${bootId()}`;
}

/** The owner of leases that no process needs to hold: they last until they are taken back. */
export function pinOwner(name: string): string {
  return `${PIN}${name}`;
}

const PIN = 'pin-';

/** Whether the process that `identity` names is alive, or it is a pin's. Processes of another PID namespace look dead. */
export function isProcessAlive(identity: string): boolean {
  if (identity.startsWith(PIN)) return true;
  const pid = Number(identity.split('-')[0]);
  return Number.isSafeInteger(pid) && pid > 0 && processIdentity(pid) === identity;
}

function processStartTime(pid: number): string | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command name, in parentheses, may itself hold spaces and parentheses: fields count from the last one.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

let knownBootId: string | undefined;

function bootId(): string {
  knownBootId ??= fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').slice(0, 8);
  return knownBootId;
}
