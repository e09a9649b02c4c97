import { lstatSync, mkdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import { ContainerInputError, NotInImageError } from './errors.ts';

// As the kernel's own limit of symbolic links in one path.
const MAX_LINKS = 40;

export interface ResolvedPath {
  /** Path on this host, below `root`. */
  readonly path: string;
  /** How many of the last components don't exist. */
  readonly missing: number;
}

/**
 * Where `inside`, a path as the container sees it, lies on this host. Symbolic links are followed as in the
 * container: none leads out of `root`. Only safe while nobody else changes the tree.
 * @throws ContainerInputError for a loop of links
 */
export function resolveInRootfs(root: string, inside: string): ResolvedPath {
  const pending = inside.split('/').reverse();
  let resolved: string[] = [];
  let missing = 0;
  let links = 0;
  while (pending.length > 0) {
    const part = pending.pop();
    if (part === undefined || part === '' || part === '.') continue;
    if (part === '..') {
      resolved = resolved.slice(0, -1);
      missing = Math.max(0, missing - 1);
      continue;
    }
    const target = missing > 0 ? undefined : linkTarget(join(root, ...resolved, part));
    if (typeof target === 'string') {
      links += 1;
      if (links > MAX_LINKS)
        throw new ContainerInputError(`too many symbolic links in '${inside}' of the image`);
      if (target.startsWith('/')) resolved = [];
      pending.push(...target.split('/').reverse());
      continue;
    }
    if (target === undefined) missing += 1;
    resolved.push(part);
  }
  return { path: join(root, ...resolved), missing };
}

/** A link's target, false for what is no link, undefined for what does not exist. */
function linkTarget(path: string): string | false | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : false;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/**
 * Makes sure that the directory `inside` of the root file system exists.
 * @param options.create false: it must be there already
 * @throws ContainerInputError
 */
export function makeDirectoryInRootfs(
  root: string,
  inside: string,
  options: { readonly create: boolean },
): { readonly path: string; readonly made: boolean } {
  const { path, missing } = resolveInRootfs(root, inside);
  if (missing === 0) return { path, made: false };
  if (!options.create) {
    throw new NotInImageError(`working directory '${inside}' does not exist in the image`);
  }
  mkdirSync(path, { recursive: true, mode: 0o755 });
  return { path, made: true };
}

/** Makes a symbolic link in an existing directory of the root file system, unless something has its name. */
export function linkInRootfs(root: string, directory: string, name: string, target: string): void {
  const { path, missing } = resolveInRootfs(root, directory);
  if (missing > 0) return;
  try {
    symlinkSync(target, join(path, name));
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== 'EEXIST' && code !== 'ENOTDIR') throw error;
  }
}
