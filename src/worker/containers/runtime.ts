import { accessSync, constants } from 'node:fs';
import { basename, delimiter, isAbsolute, join } from 'node:path';
import { ImgcredError } from '../../errors/index.ts';

/** An OCI runtime found on this host. */
export interface ContainerRuntime {
  readonly name: 'crun' | 'runc';
  readonly path: string;
  /** As the runtime prints it (`1.8.1`). */
  readonly version: string;
}

const KNOWN = ['crun', 'runc'] as const;
const INSTALL = "install one: 'apt-get install crun', 'dnf install crun' or 'apk add crun'";

/**
 * Finds the OCI runtime: crun, else runc, on PATH; or the one that is preferred, by name or by absolute path.
 * @throws ImgcredError RUNTIME_MISSING
 */
export async function findRuntime(
  preferred?: string,
  path: string = process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin',
): Promise<ContainerRuntime> {
  for (const candidate of preferred === undefined ? KNOWN : [preferred]) {
    const found = isAbsolute(candidate) ? candidate : onPath(candidate, path);
    const name = KNOWN.find((known) => basename(candidate) === known);
    if (name === undefined) {
      throw new ImgcredError('RUNTIME_MISSING', `'${candidate}' is not a known OCI runtime`, {
        hint: 'use crun or runc, by name or by absolute path',
      });
    }
    if (found === undefined || !executable(found)) continue;
    return { name, path: found, version: await versionOf(found) };
  }
  throw new ImgcredError('RUNTIME_MISSING', `no OCI runtime found (${preferred ?? KNOWN.join(', ')})`, {
    hint: INSTALL,
  });
}

async function versionOf(path: string): Promise<string> {
  const child = Bun.spawn([path, '--version'], { stdin: 'ignore', stdout: 'pipe', stderr: 'ignore' });
  const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
  const version = /version\s+(\S+)/.exec(text)?.[1];
  if (code === 0 && version !== undefined) return version;
  throw new ImgcredError('RUNTIME_MISSING', `${path} does not run: it ended with ${code}`, { hint: INSTALL });
}

function onPath(name: string, path: string): string | undefined {
  return path
    .split(delimiter)
    .filter((directory) => directory.startsWith('/'))
    .map((directory) => join(directory, name))
    .find(executable);
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
