// What an ordinary user mounts FUSE file systems by, and takes them away: a program that is root for that alone. It comes
// with the package fuse3. The one of fuse 2, without the number, takes the same arguments.
const NAMES = ['fusermount3', 'fusermount'];

/** Where the mount helper is; undefined where there is none. A PATH that is short, as a service's, is no obstacle. */
export function findMountHelper(path = process.env.PATH ?? ''): string | undefined {
  const PATH = `${path}:/usr/bin:/bin`;
  return NAMES.map((name) => Bun.which(name, { PATH })).find((found) => found !== null) ?? undefined;
}

/**
 * Takes a FUSE mount away by the mount helper.
 *
 * @param lazily also while it is in use: gone from the tree at once, and from the kernel with its last user
 * @returns undefined when it worked, else why not
 */
export async function unmountByHelper(mountpoint: string, lazily: boolean): Promise<string | undefined> {
  const helper = findMountHelper();
  if (helper === undefined) return 'fusermount3 is missing';
  const child = Bun.spawn([helper, '-u', ...(lazily ? ['-z'] : []), '--', mountpoint], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [code, said] = await Promise.all([child.exited, child.stderr.text()]);
  return code === 0 ? undefined : said.trim() || `${helper} ended with ${code}`;
}
