import { readFileSync } from 'node:fs';

/** A line of the kernel's table of mounts. @see proc_pid_mountinfo(5) */
export interface MountEntry {
  readonly target: string;
  /** `major:minor` */
  readonly device: string;
  readonly type: string;
  /** Options of the file system itself (the last field), for overlays their layers. */
  readonly options: string;
}

/** This process's mounts, in the order of mounting. Asks the kernel's table, never a path below a mount. */
export function readMountTable(): MountEntry[] {
  return parseMountTable(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** Parses a mountinfo file. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [mountPart, filePart] = line.split(' - ', 2);
    const [, , device, , target] = mountPart?.split(' ') ?? [];
    const [type, , options] = filePart?.split(' ') ?? [];
    if (target === undefined || device === undefined || type === undefined) continue;
    entries.push({ target: decodeField(target), device, type, options: options ?? '' });
  }
  return entries;
}

/** The device of what is mounted at `path`, the topmost if several are; undefined when nothing is. */
export function mountedDevice(
  path: string,
  table: readonly MountEntry[] = readMountTable(),
): string | undefined {
  return table.findLast((entry) => entry.target === path)?.device;
}

// Blanks, tabs, newlines and backslashes stand as three octal digits. Only these, all of them ASCII.
function decodeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
