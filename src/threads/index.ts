/**
 * Starts a thread from where its entry point lies. `bun build --compile` puts its bundle under the common folder of the
 * entry points given to it, which is `src` as scripts/build calls it, and the repository when a test compiles something
 * of its own.
 *
 * @param path of the entry point below `src`, without `.ts`
 * @param start makes the thread of an entry point; rejects where there is none
 * @throws what `start` threw last
 */
export async function startThread<T>(path: string, start: (entry: string) => Promise<T>): Promise<T> {
  const entries = import.meta.url.startsWith('file:///$bunfs/')
    ? [`/$bunfs/root/${path}.js`, `/$bunfs/root/src/${path}.js`]
    : [new URL(`../${path}.ts`, import.meta.url).href];
  let failure: unknown;
  for (const entry of entries) {
    try {
      return await start(entry);
    } catch (thrown) {
      failure = thrown;
    }
  }
  throw failure;
}
