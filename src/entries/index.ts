/**
 * Starts a thread from where its entry point lies.
 *
 * @param path of the entry point below `src`, without `.ts`
 * @param start makes the thread of an entry point; rejects where there is none
 * @throws what `start` threw
 */
export function startThread<T>(path: string, start: (entry: string) => Promise<T>): Promise<T> {
  return atEntry(path, start);
}

/**
 * Loads a part of the program that has an entry point of its own: a process that needs only that part does not take the
 * time to load the others.
 *
 * @param path of the entry point below `src`, without `.ts`
 */
export function importEntry<T>(path: string): Promise<T> {
  return atEntry(path, (entry) => import(entry));
}

/**
 * `bun build --compile` puts a bundle under the common folder of the entry points given to it, which is `src` as
 * scripts/build calls it, and the repository when a test compiles something of its own.
 */
async function atEntry<T>(path: string, use: (entry: string) => Promise<T>): Promise<T> {
  const entries = import.meta.url.startsWith('file:///$bunfs/')
    ? [`/$bunfs/root/${path}.js`, `/$bunfs/root/src/${path}.js`]
    : [new URL(`../${path}.ts`, import.meta.url).href];
  let missing: unknown;
  for (const entry of entries) {
    try {
      return await use(entry);
    } catch (thrown) {
      // One that is there and does not work must not be told of as one that is missing in the other place.
      if (!isMissing(entry, thrown)) throw thrown;
      missing = thrown;
    }
  }
  throw missing;
}

function isMissing(entry: string, thrown: unknown): boolean {
  return (
    thrown instanceof Error && /NotFound|Cannot find/.test(thrown.message) && thrown.message.includes(entry)
  );
}
