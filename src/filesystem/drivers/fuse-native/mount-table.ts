import { readFile } from 'node:fs/promises';

/**
 * The device number (`major:minor`) of what is mounted at `path`, the topmost if several are; undefined when
 * nothing is. It asks the kernel's table and not the path, which could wait for the mount's own server.
 *
 * @see proc_pid_mountinfo(5)
 */
export async function mountedDevice(path: string): Promise<string | undefined> {
  return findMountedDevice(await readFile('/proc/self/mountinfo', 'utf8'), path);
}

/** As `mountedDevice`, in the text of a mountinfo file. */
export function findMountedDevice(table: string, path: string): string | undefined {
  let device: string | undefined;
  for (const line of table.split('\n')) {
    const [, , lineDevice, , lineMountpoint] = line.split(' ');
    if (lineMountpoint !== undefined && decodeField(lineMountpoint) === path) device = lineDevice;
  }
  return device;
}

// Blanks, tabs, newlines and backslashes stand as three octal digits. Only these, all of them ASCII.
function decodeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
